"""Models that make images: the interface, and the kinds.

    config settings that all kinds share, and those of sampling; imports nothing heavy
    protocol the interface between engine and generator
    schedulers names of diffusers' schedulers, and building one from a model's own
    pipelines any diffusers pipeline: text-to-image and image-to-image, DiT, unconditional
    pixel a small diffusion pipeline for 8 to 64 px, and fitting it
    remaking from a record, plain diffusers code that makes its image again

To add a kind, write one class, a `GeneratorConfig` added to `GENERATORS`, and the `Generator` that it builds.
"""
