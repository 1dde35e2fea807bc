"""Models that make images: what the engine asks of one, and the kinds there are.

    config      the Config of each kind, and of sampling; imports nothing heavy
    protocol    what the engine hands over and gets back
    weights     which files are a model; safetensors only; their digest
    schedulers  which there are, and one made from a model's own
    devices     which device and precision a recipe's words mean here
    pipelines   any diffusers pipeline: text-to-image and image-to-image, DiT, unconditional
    pixel       our own small diffusion pipeline for 8 to 64 px, and fitting it
    remaking    a record -> plain diffusers code that makes its image again

A new kind is a Config in `config.GeneratorConfig` and one module that `build()` imports.
"""
