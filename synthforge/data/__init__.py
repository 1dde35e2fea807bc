"""The dataset folder: sealed WebDataset shards with a manifest, on any store.

storage      files of one folder on any store: create-only publishing
layout       names and contents of dataset.json, seals and complete.json
tars         samples -> tar; tar -> table
folder       create, publish, adopt, extend, complete, read one sample
writers      heartbeats of the processes that write now
audit        verify shards against their seals; status
sidefiles    files for other loaders: dataset card, timm, open_clip; `croissant` for Croissant
collection   pools and references of any form, read in blocks
foreign      sets that other programs wrote: WebDataset, image folders; `tables` for Hugging Face `datasets`
units        what all foreign sets share
pools        one table over the images of one or several collections
reading      labelled real images by part
subset       some real images as a dataset folder
images       decode, resize, encode and mark images
model_files  files of a model, on disk or on the hub
"""
