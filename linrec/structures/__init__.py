"""The structures of the transition matrix A."""

from linrec.structures.base import Structure as Structure
from linrec.structures.base import matvec as matvec
from linrec.structures.block import BlockDiagonal as BlockDiagonal
from linrec.structures.companion import Companion as Companion
from linrec.structures.dense import Dense as Dense
from linrec.structures.diagonal import Diagonal as Diagonal
from linrec.structures.low_rank import DiagonalPlusLowRank as DiagonalPlusLowRank
