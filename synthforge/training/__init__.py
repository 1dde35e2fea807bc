"""What every fit shares, whatever it fits.

config        the Configs, with no heavy import
loop          the training loop: schedule, averaged weights, checkpoint and resume
data          images resident on the device, in an order that a seed decides
augmentation  batched geometric augmentation on the device, with its parameters as a vector
memorising    is a generator copying what it was fitted on?
"""
