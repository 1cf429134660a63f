"""One trial in several processes of one node, each with a GPU or some cores: data-parallel training.

The processes are called ranks, as torch calls them. Each runs the same loop on its share of each batch and of the
validation set; torch's DistributedDataParallel averages the gradients while they are computed. The loop knows `Ranks`
alone; what it knows of torch.distributed stands in here.

==============  ==================================================================
ranks.py        what the loop asks of the ranks, and how one process alone answers
sharding.py     which samples of a batch and of a set a rank computes
gathering.py    whole batches whose images the ranks decode together
group.py        how several processes answer
batchnorm.py    batch normalization over all ranks
settings.py     the section ``trial.parallel``
launch.py       starts the other ranks, trains with them, and ends them
rank.py         what another rank's process does
==============  ==================================================================
"""
