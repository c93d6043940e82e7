"""An engine that takes as long as an accelerator would, in virtual or in real time."""
