"""The dataset folder: sealed WebDataset shards with a manifest, on any store.

layout     names, and what stands in dataset.json, seals and complete.json
tars       samples -> tar; tar -> table
folder     create, publish, adopt, extend, complete, read one sample
sidefiles  what other people's loaders need, written at completion: dataset card, timm, open_clip; croissant for Croissant
writers    who is writing now
audit      verify shards against their seals; status
reading    labelled images from dataset folders, plain WebDataset tars and image folders
collection pools and references of any kind in blocks; foreign for those that others wrote
"""
