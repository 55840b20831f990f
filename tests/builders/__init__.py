"""What tests are made of, by subject: images and folders of them, networks, plans, trained models, work folders.

A test file builds nothing that another one builds too, and none imports from another: both take it from here.
"""
