"""How configurations are found. A new way is a class, and a name in the union here.

Grid, random and quasi-random search are plans (`tuner.plans`), the others are adaptive (`tuner.adaptive`).
"""

from typing import Annotated

from pydantic import Field

from tuner.adaptive import CMAES, Bayesian, Evolution
from tuner.plans import QMC, Grid, Random

SearchConfig = Annotated[Grid | Random | QMC | Bayesian | CMAES | Evolution, Field(discriminator="kind")]
