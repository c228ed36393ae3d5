"""The one exception a user's mistake raises."""


class UserError(Exception):
    """Bad input of any kind. Its text is one line naming the field and what is allowed; programs exit with code 2."""
