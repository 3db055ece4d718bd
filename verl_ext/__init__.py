from contextrl.verl_ext import torchvision_ops

# Before anything here imports transformers, which imports torchvision where it is installed.
torchvision_ops.install()
