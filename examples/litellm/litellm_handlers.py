"""Providers for LiteLLM's proxy: a drafter that escalates by our gate, and the agent behind it.

    pip install 'speceyes[litellm]' 'litellm[proxy]'
    cd examples/litellm && litellm --config router.yaml

SPECEYES_LARGE and SPECEYES_SMALL name models or engines; without them the bundled tiny pair
answers, which knows only its own scenes. A pipeline with both would need no router; this way the
proxy's own budgets, keys and logs see drafts and escalations apart.
"""

from __future__ import annotations

import os

from speceyes import SeparabilityGate, SpecPipeline, tiny
from speceyes.integrations.litellm import SpecEyesLLM
from speceyes.models.hf import HFModel
from speceyes.models.openai import OpenAIModel
from speceyes.protocols import VisionLanguageModel


def model(variable: str, bundled: str) -> VisionLanguageModel:
    """The model that an environment variable names, or the bundled one."""
    name = os.environ.get(variable, bundled)
    return OpenAIModel(name) if name.startswith("http") else HFModel.from_pretrained(name)


own = tiny.settings()
gate = SeparabilityGate(own["threshold"], top_k=own["top_k"])
drafts = SpecEyesLLM(
    SpecPipeline.from_pretrained(
        small=model("SPECEYES_SMALL", str(tiny.SMALL)), gate=gate, judge=None
    )
)
agent = SpecEyesLLM(SpecPipeline.from_pretrained(large=model("SPECEYES_LARGE", str(tiny.LARGE))))
