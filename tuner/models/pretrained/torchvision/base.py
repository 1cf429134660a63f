"""The base class of models that begin with weights of torchvision."""

from abc import abstractmethod

from tuner.errors import Problem, UserError, allowed
from tuner.models.pretrained.base import Pretrained
from tuner.models.pretrained.torchvision import weights as pretrained


class TorchvisionWeights(Pretrained):
    """A model that is one of torchvision's, or has one in it, whose weights it begins with."""

    @property
    @abstractmethod
    def of_torchvision(self) -> str:
        """The name of that model in torchvision."""

    @property
    def is_downloaded(self) -> bool:
        return pretrained.location(self.of_torchvision, self.weights).is_file()

    def fetch(self) -> str:
        name = self.of_torchvision
        if not pretrained.fetch(name, self.weights):
            return ""
        return f"downloaded the weights {self.weights} of {name} to {pretrained.location(name, self.weights)}"

    def unavailable(self, error: Exception) -> UserError:
        return pretrained.unavailable(self.of_torchvision, self.weights, error)

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names that torchvision has for weights of the model; DEFAULT is one of them."""
        return pretrained.choices(self.of_torchvision)

    def name_problem(self) -> Problem | None:
        known = ("none", *self.weight_names)
        if self.weights in known:
            return None
        hint = f"{allowed(self.weights, known)}, or the path of a file, such as ./{self.weights}.pt"
        return Problem(f"torchvision has no weights {self.weights!r} of {self.of_torchvision}", "weights", hint=hint)
