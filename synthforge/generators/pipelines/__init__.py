"""Any diffusers pipeline that makes images from texts, from ImageNet classes or from nothing, as a generator.

config the Config of each kind; imports nothing heavy
families which pipelines belong to which kind, and checks of a model without loading it
loading files to pipeline: components, VAE, LoRAs, textual inversions, quantisation
embeddings each distinct prompt is encoded once
acceleration memory format, compilation, decoding in parts
generator requests to one call of the pipeline to uint8 images
"""
