"""Encrypts what users' tools sign in with. A ciphertext belongs to one user and one name, and opens for no other."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel

from longhaul.errors import SetupError

NO_KEYS = (
    "Credentials cannot be stored here: LONGHAUL_CREDENTIAL_KEYS is not set. Make a key by `longhaul credentials "
    "new-key`, and set it for the API and the workers."
)
UNREADABLE = (
    "A stored credential cannot be decrypted: none of LONGHAUL_CREDENTIAL_KEYS is its key. Add the key that was used "
    "before behind the new one, then run `longhaul credentials reencrypt`."
)


class Secret(BaseModel):
    """What a tool signs in with. `refresh_token`: gets the next one from the provider; empty: there is none."""

    value: str
    refresh_token: str = ""


class _Sealed(BaseModel):
    """The plaintext: a secret, and whose it is under which name."""

    owner: str
    name: str
    secret: Secret


class Vault:
    """Encrypts with the first of its keys, and decrypts with all of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise SetupError(NO_KEYS)
        return self._fernet

    def check(self) -> None:
        """Do nothing if there are keys.

        Raises:
            SetupError: there are none.
        """
        _ = self._keys

    def seal(self, owner: str, name: str, secret: Secret) -> str:
        """Encrypt a secret.

        Raises:
            SetupError: there are no keys.
        """
        plain = _Sealed(owner=owner, name=name, secret=secret).model_dump_json()
        return self._keys.encrypt(plain.encode()).decode()

    def open(self, owner: str, name: str, sealed: str) -> Secret:
        """Decrypt a secret.

        Raises:
            SetupError: there is no key for it, or it was sealed for another user or under another name.
        """
        try:
            plain = _Sealed.model_validate_json(self._keys.decrypt(sealed))
        except InvalidToken:
            raise SetupError(UNREADABLE) from None
        if (plain.owner, plain.name) != (owner, name):
            raise SetupError("A stored credential was sealed for another user or name, and is not given out.")
        return plain.secret

    def sealed_anew(self, sealed: str) -> str | None:
        """The same with the newest key; None: there is no key for it."""
        try:
            return self._keys.rotate(sealed).decode()
        except InvalidToken:
            return None


def new_key() -> str:
    """A key for LONGHAUL_CREDENTIAL_KEYS."""
    return Fernet.generate_key().decode()
