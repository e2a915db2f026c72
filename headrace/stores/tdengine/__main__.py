"""``python -m headrace.stores.tdengine``: the follower process of a tail."""

from headrace.stores.tdengine.follower import main

main()
