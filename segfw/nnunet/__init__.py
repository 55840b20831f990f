"""Everything of nnU-Net v2's dialect, to and from ours. Facts about its files are from nnU-Net 2.8.1.

Its plans as ours (``read_plans``, ``followed_plans``) and ours as its (``write_plans``); its trained-model folders as
a model of ours (``trained_folder``, ``torch_checkpoint``, ``import_folders``) and back (``write_trained_folder``).
Nothing in its files is run. What segfw would compute otherwise is refused by name. No room but the verbs knows this
one.
"""
