"""Everything that the fits of generators, encoders and classifiers share.

config the Configs; imports nothing heavy
loop the training loop: schedule, averaged weights, checkpoint and resume
data images resident on the device, in an order decided by a seed
augmentation geometric augmentation of batches on the device, random erasing, mixup
networks the small residual classifier, and batch-norm recalibration
memorising whether a generator copies the images it was fitted on
"""
