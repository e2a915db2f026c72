"""How readings travel in a message: one as a JSON object, or many as columns.

    {"device": "meter-0001", "ts": 1763668800000, "current": 10.2, "voltage": 219}
    {"device": ["meter-0001", "meter-0002"], "ts": [..., ...], "current": [10.2, 9.8], "voltage": [219, 220]}

A topic's messages are decoded by types made from its declaration, a micro-batch at a time. A message is
accepted or refused whole: a refused one never touches its neighbours and says why. Keys that the topic does
not declare are ignored, so that devices may send more than is asked for.
"""

from headrace.wire.decode import Decoded, Decoder
from headrace.wire.encode import Encoder
from headrace.wire.envelope import Envelope
from headrace.wire.reasons import Reason, Refused

__all__ = ["Decoded", "Decoder", "Encoder", "Envelope", "Reason", "Refused"]
