"""An endless run of a pipeline: what one client asks joins what the others asked.

The server and `SpecPipeline.ask` are both fed through it.
"""
