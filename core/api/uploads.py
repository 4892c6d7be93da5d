"""Bodies that are too long for the memory: who sends one is known before it is read, and it waits on disk."""

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Final, cast

from starlette.requests import Request

from core.api.bearers import bearer_of, person_of
from core.api.requests import parts_of, signed_by
from core.bootstrap import Core
from core.services.access.acting import confined
from core.services.access.keys import Caller
from core.services.problems import Refusal
from wire.signing import BODY_DIGEST_HEADER

_IN_MEMORY_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@asynccontextmanager
async def uploaded(
    core: Core, request: Request, require: Callable[[Caller], object], limit_bytes: int
) -> AsyncIterator[tuple[Caller, IO[bytes]]]:
    """Lend who sends a body, and the body as a file that goes when the block ends.

    `require` refuses who may not send it. A signature is over the SHA-256 that the request tells, so that nobody's
    bytes are kept before it is known whose they are. Raises Refusal: one of the 401s, what `require` raises,
    body_too_large.
    """
    digest = request.headers.get(BODY_DIGEST_HEADER)
    caller = await _sender(core, request, digest)
    require(caller)
    with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        file, found = cast("IO[bytes]", spool), hashlib.sha256()
        async for part in parts_of(request, limit_bytes):
            found.update(part)
            file.write(part)
        if digest is not None and digest != found.hexdigest():
            raise Refusal("unauthenticated", f"the body is another than {BODY_DIGEST_HEADER} tells")
        yield caller, file


async def _sender(core: Core, request: Request, digest: str | None) -> Caller:
    if (token := bearer_of(request)) is not None:
        caller = await person_of(core, request, token)
    elif digest is None or not _DIGEST.fullmatch(digest):
        raise Refusal("unauthenticated", f"a long body is signed by its SHA-256: tell it in {BODY_DIGEST_HEADER}")
    else:
        caller = await signed_by(request, b"", core.authenticator, "service", digest)
    if caller.acting is not None or caller.acts_for_users:
        caller = await confined(core.ports, caller, request.method, request.url.path)
    return caller
