"""FiLM and gradient reversal against what they are defined as."""

import pytest
import torch

from neurofm_ml.nn.conditioning import FiLM, reverse_gradient


def test_film_starts_as_the_identity_and_learns_scale_and_shift():
    film, x, condition = FiLM(3, 5), torch.randn(2, 4, 5), torch.randn(2, 1, 3)
    assert torch.equal(film(x, condition), x)
    torch.nn.init.normal_(film.modulate.weight)
    torch.nn.init.normal_(film.modulate.bias)
    scale, shift = (condition @ film.modulate.weight.T + film.modulate.bias).split(5, -1)
    assert torch.allclose(film(x, condition), x + x * scale + shift, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_the_reversed_gradient_is_minus_the_strength_times_the_gradient(strength):
    x = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(3, 2)
    (plain,) = torch.autograd.grad((x @ weight).square().sum(), x)
    y = reverse_gradient(x, strength)
    assert torch.equal(y, x)
    (reversed_,) = torch.autograd.grad((y @ weight).square().sum(), x)
    assert torch.equal(reversed_, -strength * plain)
