"""Speed: arms side by side, sweeps, real model sizes, load on a server, and plans of a fleet."""
