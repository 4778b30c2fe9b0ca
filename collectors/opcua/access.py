"""How an OPC UA connection is protected and who logs in, as configured; and what of it does not go together.

May import: `collectors.fields`, pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from collectors.fields import Model

Policy = Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", "None"]


def _check_policy(value: object) -> object:
    if value in ("Basic128Rsa15", "Basic256"):
        raise PydanticCustomError(
            "policy",
            "{policy} is broken (SHA-1) and withdrawn by the OPC Foundation: never supported;"
            " Basic256Sha256 is what most servers offer instead",
            {"policy": value},
        )
    return value


class Security(Model):
    """How the connection is protected."""

    policy: Annotated[Policy, BeforeValidator(_check_policy)] = Field(
        "Basic256Sha256", description="`None` (no encryption, no signature) must be written"
    )
    mode: Literal["None", "Sign", "SignAndEncrypt"] | None = Field(
        None, description="default SignAndEncrypt; nothing with policy None"
    )

    @model_validator(mode="after")
    def _fit(self) -> Security:
        if self.policy == "None" and self.mode not in (None, "None"):
            raise PydanticCustomError("mode", "policy None neither signs nor encrypts: leave mode out", {"key": "mode"})
        if self.policy != "None" and self.mode == "None":
            raise PydanticCustomError(
                "mode",
                "mode None would switch the policy off: leave mode out, or write policy: None to connect unprotected",
                {"key": "mode"},
            )
        return self

    @property
    def applied_mode(self) -> str:
        """`None`, `Sign` or `SignAndEncrypt`, default applied."""
        return "None" if self.policy == "None" else self.mode or "SignAndEncrypt"


def check_user(
    security: Security, username: str | None, password: str | None, certificate: str | None, key: str | None
) -> None:
    """Refuse a user that is half written, written twice, or would be known to everybody in the network.

    Raises:
        PydanticCustomError: at the key in question.
    """
    for name, other, present in (
        ("username", "password_file", username is not None and password is None),
        ("password_file", "username", password is not None and username is None),
        ("user_cert_file", "user_key_file", certificate is not None and key is None),
        ("user_key_file", "user_cert_file", key is not None and certificate is None),
    ):
        if present:
            raise PydanticCustomError("user", "needs {other}: beside it", {"key": name, "other": other})
    if username is not None and certificate is not None:
        raise PydanticCustomError(
            "user", "a session has one user: username or user_cert_file, not both", {"key": "user_cert_file"}
        )
    if security.policy != "None":
        return
    if username is not None:
        raise PydanticCustomError(
            "user",
            "with policy None everybody in the network could read the password: leave security out (it is encrypted"
            " then), or username and password_file",
            {"key": "username"},
        )
    if certificate is not None:
        raise PydanticCustomError(
            "user",
            "with policy None anybody in the network could take over the session of this user: leave security out"
            " (it is encrypted then), or user_cert_file and user_key_file",
            {"key": "user_cert_file"},
        )
