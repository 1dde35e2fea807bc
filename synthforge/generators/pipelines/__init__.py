"""Any pipeline of diffusers that makes images from texts, from ImageNet classes or from nothing, as a generator.

config        the Config of each kind; imports nothing heavy
families      which pipelines are of which kind, and what can be read of a model without loading it
loading       files -> pipeline: components, VAE, LoRAs, textual inversions, quantisation
embeddings    each distinct prompt is encoded once
acceleration  memory format, compilation, decoding in parts
generator     requests -> one call of the pipeline -> uint8 images
"""
