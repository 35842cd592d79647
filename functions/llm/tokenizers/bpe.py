"""Byte-level BPE of the `tokenizers` library: trained, saved and loaded as the library's own JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import batched, chain
