"""`dlbench bench`: the harness's own speed, beside transformers' generate and lm-eval, in one process."""
