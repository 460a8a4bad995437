"""The models that are configured, in the form of OpenAI's list."""

from fastapi import APIRouter

from api.dependencies import CurrentUser, Deps
from api.problems import RESPONSES
from api.schemas.models import Abilities, Model, Models
from longhaul.db import accounts
from longhaul.limits.access import may_use
from longhaul.llm.effort import efforts_of
from longhaul.llm.models import ModelInfo, known_model, model_info
from longhaul.settings import Settings
from longhaul.settings.models import TIERS, ModelChoice

router = APIRouter(prefix="/v1", tags=["models"], responses=RESPONSES)


@router.get("/models", summary="Tiers and models")
async def models(user: CurrentUser, deps: Deps) -> Models:
    """What a session or message of this user may choose: the tiers, the models behind them, and those that the operator
    allows."""
    settings = deps.settings
    async with deps.database.read() as connection:
        account = await accounts.get(connection, user)
    names = dict.fromkeys([*TIERS, *map(settings.model_of, TIERS), *settings.allowed_models])
    chosen = ((name, settings.choose(name)) for name in names)
    return Models(
        data=[
            _described(settings, name, choice)
            for name, choice in chosen
            if choice and may_use(settings, account, choice.model)
        ]
    )


def _described(settings: Settings, name: str, choice: ModelChoice) -> Model:
    model = choice.model
    info = model_info(settings, model)
    is_known = known_model(model) is not None or model in settings.models
    return Model(
        id=name,
        model=model,
        tier=choice.tier,
        fallbacks=settings.models_for(model, choice.tier)[1:],
        window=info.window,
        max_output_tokens=info.output or None,
        abilities=_abilities(model, info) if is_known else None,
        prices=info.prices,
        long_prompt=info.long_prompt,
    )


def _abilities(model: str, info: ModelInfo) -> Abilities:
    efforts = efforts_of(model, info) if info.reasoning or info.efforts else ()
    return Abilities(
        tools=info.tools,
        vision=info.vision,
        reasoning=info.reasoning,
        always_thinks=info.always_thinks or bool(efforts and "none" not in efforts),
        efforts=list(efforts),
    )
