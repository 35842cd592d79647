"""The step of small models as one call of a C++ kernel, where there is one; without it XLA alone does the same."""
