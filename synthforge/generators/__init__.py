"""Models that make images: what the engine asks of one, and the kinds there are.

    config    the Config of each kind, and of sampling; imports nothing heavy
    protocol  what the engine hands over and gets back
    weights   which files are a model; safetensors only; their digest
    pixel     our own small diffusion pipeline for 8 to 64 px, and fitting it

A new kind is a Config in `config.GeneratorConfig` and one module that `build()` imports.
"""
