"""What a user asks for: a file a verb, in which one public function calls the rooms one after the other.

A verb's file also says what the command line shows of it (``COMMAND``). All of them are read for ``segfw --help``,
which must not wait for PyTorch: a verb imports the rooms that it needs when it is called. Nothing but the command line
imports this room, and no rule, format or arithmetic is written here.
"""
