"""The routes of the contract. The hot ones are plain: no model is built per request."""
