"""Our own small diffusion model for 8 to 64 px, as a true diffusers pipeline.

network    the denoiser: an MLP for tiny images, a U-Net above
pipeline   PixelPipeline: guidance by label or by a less trained copy, image-to-image
generator  what the engine sees of it
report     fit.json: what a fit says of itself
fit        train it from labelled images, guarding against memorising
"""
