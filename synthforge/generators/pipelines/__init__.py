"""Any diffusers pipeline that makes images from texts, from ImageNet classes or from nothing, as a generator."""
