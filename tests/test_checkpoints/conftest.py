import logging
from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log():
    """What is logged: all messages, and those of warnings alone."""
    log = SimpleNamespace(messages=[], warnings=[])

    def emit(record):
        log.messages.append(record.getMessage())
        if record.levelno == logging.WARNING:
            log.warnings.append(record.getMessage())

    handler = logging.Handler()
    handler.emit = emit
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield log
    logger.removeHandler(handler)
