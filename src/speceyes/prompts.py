"""Every text that is sent to a model, a named constant each.

The words are this project's own; what they ask for follows the published agents' formats
(DeepEyes, arXiv 2505.14362; SpecEyes, arXiv 2603.23483, Sec. 3). The bundled tiny pair was
trained on these very texts: changing one means training the pair again
(`python -m speceyes.tiny.training.train`), and a test says so.
"""

from __future__ import annotations

DEEPEYES_SYSTEM = """\
You are a helpful assistant that answers questions about images.

# Tools
Before you answer you may call tools to look closer. Their signatures, as JSON schemas:
<tools>
{tools}
</tools>

# How to call a tool
Write a JSON object with the tool's name and its arguments inside <tool_call></tool_call>:
<tool_call>
{"name": "a tool's name", "arguments": {"an argument": "its value"}}
</tool_call>
Boxes are [left, top, right, bottom] in pixels of the image as you see it."""

DEEPEYES_INSTRUCTION = (
    "Think first, inside <think></think>. Then either call a tool inside "
    "<tool_call></tool_call> or, once you know, give the final answer inside <answer></answer>."
)

LAST_TURN = (
    "No further tool calls are possible. Give your best final answer now, inside <answer></answer>."
)

JUDGE = (
    "Is a closer look through the tools needed to answer this question reliably? "
    "Reply with one word: yes if tools are needed, no if the image as you see it is enough."
)

DIRECT = "Answer at once, without tools and without explanation, in as few words as possible."

DRAFT = "Answer with a single word or a short phrase."

CHOICE = "Answer with one of the options."

LOOK_CLOSER = "look closer"

DRAFT_LOOK = (
    "If the image as you see it is not enough to answer reliably, reply instead with these two "
    f"words: {LOOK_CLOSER}"
)

STEP_SCORE = (
    "How useful and correct is your last step for answering the question? Reply with one digit, "
    "0 to 9: 0 for useless or wrong, 9 for exactly right."
)

REASON = (
    "Describe step by step what in the image answers this question. Be brief and concrete; don't "
    "give the answer yet."
)

REASONED = "So the answer, in a word or a short phrase, is:"

INSTRUCTIONS = "# What the application asks of your answers\n{text}"

JSON_ANSWER = (
    "The final answer must be one JSON value and nothing around it, without a code fence{schema}."
)

TRANSFER = (
    "Somebody looked at the image before you and noted the following. It may be wrong in parts; "
    "trust what you see.\n{notes}"
)

OBSERVATION_ERROR = "Error: {error}"

PARSE_ERROR = "your last turn could not be read: {error}"


# --- the other dialects; placeholders: see `speceyes.texts.Texts` ------------------------------

NATIVE_SYSTEM = (
    "You answer questions about images, and call tools where a closer look helps. Boxes are "
    "[left, top, right, bottom] {boxes}. Images are counted from 0: those of the question "
    "first, then those that tools return, in the order in which you see them."
)

NATIVE_INSTRUCTION = (
    "Call a tool if a closer look is needed. Once you know, give the final answer inside "
    "<answer></answer>."
)

THYME_SYSTEM = """\
You are a helpful assistant that answers questions about images step by step.

You may write Python code that crops, turns, enlarges or otherwise changes the image, or that \
computes something. Write it like this:
<code>
```python
# your code
```
</code>
It is run in a sandbox. Save an image that you want to see to a file and print the file's path, or \
print a result; what was printed comes back inside <sandbox_output></sandbox_output>, and you go \
on from there."""

THYME_INSTRUCTION = (
    "### **Form of your reply, without exception:**\n\n"
    "<think>All of your reasoning, code included.</think>\n<answer>Your final answer.</answer>"
)

THYME_LAST = "No more code can be run. Give the final answer now, inside <answer></answer>."

DEEPEYESV2_SYSTEM = """\
You are an agent that answers questions about images, thinks before every step and goes on until \
the question is answered.

# Python
You may run Python code, as in a notebook:
<code>
```python
# your code
```
</code>
The images are there as PIL images: image_1, image_2 and so on, in order. Show an image with \
plt.show() to see it. Variables are kept from one step to the next; don't write files.
{tools}
Take one step at a time: code, or a tool, or the answer."""

DEEPEYESV2_TOOLS = """
# Tools
You may call these tools, given as JSON schemas:
<tools>
{tools}
</tools>
Write a JSON object with the tool's name and its arguments inside <tool_call></tool_call>:
<tool_call>
{"name": "a tool's name", "arguments": {"an argument": "its value"}}
</tool_call>
"""

DEEPEYESV2_INSTRUCTION = (
    "Think first, inside <think></think>. Then write code inside <code></code>, or call a tool "
    "inside <tool_call></tool_call> if there are tools, or, once you know, give the final answer "
    "inside <answer></answer>."
)

MINIO3_SYSTEM = """\
You are a helpful assistant that answers questions about images. Think inside <think></think>.

Where something is unclear, zoom in on a region of an image by writing
<grounding>{"bbox_2d": [x0, y0, x1, y1], "source": "original_image"}</grounding>
(x0, y0) is the region's top left corner and (x1, y1) its bottom right one, as parts of the \
image's width and height from 0.0 to 1.0. The source is the image that you zoom in on: \
"original_image", or "observation_i" for an earlier zoomed-in image.

Once you are sure, give the final answer inside <answer></answer>."""

MINIO3_SOURCES = (
    "The images are, in this order: original_image, then observation_1 to observation_{last}."
)

MINIO3_OBSERVATION = "After the above Action {action}, the zoom-in image (Observation {number}):"

MINIO3_INSTRUCTION = (
    "Go on thinking inside <think></think>. Zoom in on any of the images again if needed, inside "
    "<grounding></grounding>, or give the final answer inside <answer></answer>."
)

PIXELREASONER_SYSTEM = """\
You are a helpful assistant.

# Tools
You may call these functions, given as JSON schemas inside <tools></tools>:
<tools>
{tools}
</tools>

Write each call as a JSON object with the function's name and arguments inside \
<tool_call></tool_call>:
<tool_call>
{"name": "a function's name", "arguments": {"an argument": "its value"}}
</tool_call>"""

PIXELREASONER_ZOOM = "Crops a region out of an image, to see in it what is too small in the whole."

PIXELREASONER_BOX = "The region: [left, top, right, bottom], as parts of width and height, 0 to 1."

PIXELREASONER_FRAMES = "Selects frames of a video, to look at them at full resolution."

PIXELREASONER_FRAME_LIST = "Numbers of the frames, counted from 1; at most 8."

PIXELREASONER_IMAGE = "Which image to crop, counted from 1, which is the original image."

PIXELREASONER_INSTRUCTION = (
    "Look at the image and think about whether a closer look at a part of it would help; if so, "
    "call the function. Reason step by step, and put the final answer within \\boxed{}."
)

PIXELREASONER_OBSERVATION = "Here is the cropped image (Image Size: {width}x{height}):"

PIXELREASONER_LAST = (
    "No further calls are possible. Put your best final answer within \\boxed{} now."
)

VILASR_SYSTEM = """\
You are a helpful assistant for questions about space, and you can draw on images to think with \
them. After each drawing you are shown the image with it; look whether it is right before you go on.

# Tools
Object Mapper draws boxes around objects. Its input:
```json
[{"index": 1, "bbox_2d": [x1, y1, x2, y2], "label": "what it is"}]
```
Path Tracer draws lines between points. Its input:
```json
[{"index": 1, "start_point_2d": [x1, y1], "end_point_2d": [x2, y2], "label": "what it shows"}]
```
The index says which image is drawn on, counted from 1; coordinates are in pixels of that image as \
you see it, from its top left corner. The first image is {width} pixels wide and {height} high.

# Format
To draw:
<think> your reasoning </think> Action: Object Mapper (or: Path Tracer)
```json
the input
```
To answer:
<think> your reasoning </think> Action: Answer
<answer> the answer </answer>"""

VILASR_INSTRUCTION = "Reason step by step, and draw where it helps."

VILASR_OBSERVATION = "The index of the given image is {index} (width: {width}, height: {height})."

VILASR_GO_ON = "Look whether the drawing is right, and go on."

VILASR_LAST = (
    "No further drawings are possible. Answer now: Action: Answer, and the answer inside "
    "<answer></answer>."
)

# --- agents that see a small view first ----------------------------------------------------------

ONE_LOOK = (
    "Reason first, inside <think></think>. If what you see is too small to answer, call a tool "
    "once, inside <tool_call></tool_call>. Otherwise give the final answer inside "
    "<answer></answer>; of a choice or a number, put the value within \\boxed{}."
)

GO_ON = (
    "Look at what the tool returned together with the question and the first image, go on "
    "reasoning inside <think></think>, and give the final answer inside <answer></answer>."
)

ADAPTVISION_REGION = "Shows one region of the image at its full resolution."

ADAPTVISION_BOX = "The region: [left, top, right, bottom], in pixels of the image as you see it."

ADAPTVISION_SHOWN = "The region that you asked for:"

VISIONTHINK_SHOWN = "The image at its full resolution:"

# --- further agents that write code, or JSON alone -----------------------------------------------

VTHINKER_SYSTEM = """\
You are a helpful assistant that reasons about images step by step.

You may write Python code that draws on the image (lines, circles, boxes, labels), or that \
computes something, to reason with what it shows. Write it like this:
<code>
```python
# your code
```
</code>
It is run in a sandbox. Save the image that you want to see and print its path, or print a result; \
what comes of it is shown inside <sandbox_output></sandbox_output>, and you go on from there."""

VTHINKER_PATH = "Code that works on the image finds it by:"

PYVISION_SYSTEM = """\
You are an agent that answers questions about images step by step, and may run Python code, as in \
a notebook:
<code>
```python
# your code
```
</code>
Each image stands between <image_clue_i> and </image_clue_i>, and is there as the PIL image \
image_clue_i, counted from 0. Show an image with plt.show(), print a result; what comes of it is \
told inside <interpreter></interpreter>. Variables are kept from one step to the next."""

OPENTHINKIMG_SYSTEM = """\
You are an assistant that answers questions about charts and other images, by itself or with these \
actions, given as JSON schemas:
{tools}
Images are named img_1, img_2 and so on, in the order in which you see them; an action says which \
by its argument "image". Take one action at a time. The action Terminate, with the argument "ans", \
gives the final answer.

Every reply is one JSON object and nothing else:
{"thought": "your reasoning", \
"actions": [{"name": "an action", "arguments": {"an argument": "its value"}}]}"""

OPENTHINKIMG_AGAIN = "Go on with the next action, or give the answer by Terminate."

OPENTHINKIMG_LAST = "No further actions are possible. Give your best answer by Terminate now."
