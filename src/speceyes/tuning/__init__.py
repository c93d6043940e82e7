"""Tuning: whether speculation is worth it, and with which settings.

`worth` holds the choices of judge against each other from the costs of the phases; `roofline` works
these costs out from sizes, where they can't be measured.
"""
