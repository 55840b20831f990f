"""From a case as stored to the network's grid, and back again.

Normalisation, resampling, the crop, the way back of logits to classes block by block, and the store of preprocessed
cases. This room knows labels and cases, but neither what was planned for them nor any network.
"""
