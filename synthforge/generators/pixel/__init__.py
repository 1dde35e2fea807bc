"""A small class-conditional diffusion model for 8 to 64 px, as a diffusers pipeline.

network the denoiser: an MLP for tiny images, a U-Net above
pipeline PixelPipeline: guidance by label or by a less trained copy, image-to-image
generator the pipeline as a generator for the engine
checks checks of a model from its configuration files
report fit.json: the record of a fit
fit training on labelled images, with a guard against memorising
"""
