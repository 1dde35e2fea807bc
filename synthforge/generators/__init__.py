"""Models that make images: what the engine asks of one, and the kinds there are.

    config      what the Configs of all kinds share, and that of sampling; imports nothing heavy
    protocol    what the engine hands over and gets back
    weights     which files are a model; safetensors only; their digest
    schedulers  which there are, and one made from a model's own
    devices     which device and precision a recipe's words mean here
    pipelines   any diffusers pipeline: text-to-image and image-to-image, DiT, unconditional
    pixel       our own small diffusion pipeline for 8 to 64 px, and fitting it
    remaking    a record -> plain diffusers code that makes its image again

A new kind is one class, a `GeneratorConfig` that is added to `GENERATORS`, and the `Generator` that it builds.
"""
