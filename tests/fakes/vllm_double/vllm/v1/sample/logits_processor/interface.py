from enum import Enum, auto


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()
