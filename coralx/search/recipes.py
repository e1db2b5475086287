"""Recipes that stand before any sample: the user's own, the common default, the priors' centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.records.genomes import GENE_NAMES, Genes
from coralx.search.space import Continuous, Integer, Space
from coralx.text import counted


def default_recipe(space: Space) -> Genes | None:
    """The common recipe; None where it lies outside the space."""
    return space.common if space.contains(space.common) else None


def prior_center(space: Space) -> Genes | None:
    """The recipe in the middle of all priors, its other genes as in the common recipe, or where the
    space does not hold that gene's value, the nearest that it holds; None without priors."""
    if not space.priors:
        return None
    centers = {name: prior.center for name, prior in space.priors.items()}
    common = space.values(space.common)
    return space.build(
        {name: gene.nearest(centers.get(name, common[name])) for name, gene in space.genes.items()}
    )


def opening_recipes(space: Space, own: Sequence[Genes] = ()) -> list[Genes]:
    """What generation 0 begins with, whatever else it holds: the user's `own` recipes, the default
    recipe if the space holds it, and the centre of the priors if there are any."""
    recipes = [*own, default_recipe(space), prior_center(space)]
    return list(dict.fromkeys(recipe for recipe in recipes if recipe is not None))


def own_recipes(config: Config, space: Space) -> list[Genes]:
    """The user's `evolution.seed_genomes`, completed by the common recipe.

    Raises ConfigError naming every gene that lies outside the space, where it could not be varied.
    """
    recipes, problems = [], []
    count, size = len(config.evolution.seed_genomes), config.evolution.population_size
    if count > size:
        problems.append(
            f"evolution.seed_genomes: {counted(count, 'recipe')}, but "
            f"evolution.population_size is {size}"
        )
    for place, seed in enumerate(config.evolution.seed_genomes):
        given = {k: v for k, v in seed.model_dump().items() if v is not None}
        rank = given.get("rank", space.common.rank)
        if "alpha" in given:
            given["alpha_ratio"] = given.pop("alpha") / rank
        recipe = replace(space.common, **given)
        recipes.append(recipe)
        for name in GENE_NAMES:
            value = getattr(recipe, name)
            if not space.contains_gene(name, value):
                problems.append(
                    f"evolution.seed_genomes.{place}.{name}: {value!r} lies outside "
                    f"search_space.{name} ({_extent(space, name)})"
                )
    if problems:
        raise ConfigError("config", problems, "Widen search_space, or change the recipe.")
    return recipes


def _extent(space: Space, name: str) -> str:
    """The values that a gene may have, in words."""
    gene = space.genes.get(name)
    if gene is None:
        return f"not searched, fixed at {getattr(space.common, name)!r}"
    if isinstance(gene, Continuous | Integer):
        return f"{gene.low:g} to {gene.high:g}"
    return ", ".join(str(value) for value in gene.values)
