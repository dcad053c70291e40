"""OpenAI's endpoints for sound: transcriptions and translations, by models that hear."""
