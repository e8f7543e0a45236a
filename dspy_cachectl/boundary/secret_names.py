"""Which names hold secrets: options, headers, parameters of addresses, variables of the environment.

Two questions are asked of a name. Is it a *known* credential, by its exact name, where credentials are given? Then its
value says who asks and not what, and is kept nowhere: a new key finds the old answers. Or does it only sound like one?
Then its value is kept nowhere in readable form, but may still decide the answer: `x-portkey-provider` names a provider.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SETTINGS = frozenset(
    {"openai_key", "azure_key", "anthropic_key", "replicate_key", "cohere_key", "maritalk_key", "ai21_key"}
    | {"huggingface_key", "aleph_alpha_key", "nlp_cloud_key", "together_ai_key", "groq_key", "ollama_key"}
    | {"baseten_key", "bytez_key", "clarifai_key", "cometapi_key", "databricks_key", "datarobot_key", "gdc_key"}
    | {"gigachat_key", "heroku_key", "inception_key", "infinity_key", "lemonade_key", "nebius_key", "openai_like_key"}
    | {"openrouter_key", "ovhcloud_key", "predibase_key", "snowflake_key", "vercel_ai_gateway_key", "wandb_key"}
    | {"xai_key"}
)
"""What LiteLLM calls its own settings for the providers' keys; as options of a call they are sent."""

OPTIONS = frozenset(
    {"api_key", "apikey", "api_keys", "api_token", "token", "password", "auth", "authorization", "credentials"}
    | {"access_token", "refresh_token", "id_token", "auth_token", "bearer_token", "session_token", "client_secret"}
    | {"private_key", "secret", "secret_key", "secret_access_key", "access_key", "access_key_id", "credential"}
    | {"azure_ad_token", "azure_ad_token_provider", "azure_username", "azure_password"}
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_web_identity_token", "aws_external_id"}
    | {"aws_bearer_token_bedrock", "aws_bedrock_client", "s3_access_key_id", "s3_secret_access_key"}
    | {"vertex_credentials", "vertex_ai_credentials", "google_application_credentials", "gcs_path_service_account"}
    | {"oci_key", "oci_key_file", "oci_user", "oci_fingerprint", "oci_tenancy", "oci_signer", "service_key"}
    | {"watsonx_credentials", "watsonx_apikey", "watsonx_token", "watsonx_zenapikey", "zen_api_key"}
    | {"anthropic_identity_token", "anthropic_identity_token_file", "openai_identity_token_file", "hf_token"}
    | {"anthropic_issuer_signing_key_ref", "anthropic_keycloak_client_secret_ref", "gemini_api_key", "llama_api_key"}
    | {"gigachat_access_token", "gigachat_credentials", "traffic_access_token", "envd_access_token"}
    | _SETTINGS
    | {"langfuse_secret", "langfuse_secret_key", "langfuse_public_key", "langsmith_api_key", "humanloop_api_key"}
    | {"arize_api_key", "arize_space_key", "posthog_api_key", "wandb_api_key", "dd_api_key", "newrelic_api_key"}
    | {"signoz_ingestion_key", "valkey_password", "secret_fields", "_litellm_internal_model_credentials"}
    | {"litellm_trusted_callback_vars", "master_key", "proxy_auth", "http_auth", "basic_auth", "chatgpt_auth_file"}
)
"""Options of a call that are credentials, LiteLLM's and DSPy's among them."""

HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-authorization", "authentication", "cookie", "set-cookie", "cookie2"}
    | {"x-api-key", "api-key", "apikey", "x-apikey", "x-goog-api-key", "x-api-token", "api-token", "token"}
    | {"x-auth-token", "x-auth-key", "x-access-token", "access-token", "x-session-token", "x-id-token"}
    | {"x-amz-security-token", "x-amz-access-token", "x-amz-signature", "x-aws-ec2-metadata-token"}
    | {"ocp-apim-subscription-key", "x-ms-token-aad-access-token", "x-ms-token-aad-id-token"}
    | {"x-goog-iap-jwt-assertion", "x-goog-iam-authorization-token", "x-goog-user-authorization"}
    | {
        "x-vault-token",
        "private-token",
        "job-token",
        "x-gitlab-token",
        "x-github-token",
        "x-csrf-token",
        "x-xsrf-token",
    }
    | {"x-forwarded-access-token", "x-forwarded-authorization", "x-serverless-authorization", "cf-access-client-secret"}
    | {"cf-access-token", "cf-aig-authorization", "helicone-auth", "x-portkey-api-key", "x-portkey-virtual-key"}
    | {"x-litellm-api-key", "x-litellm-key", "x-litellm-signature", "x-langfuse-secret-key", "x-secret", "x-token"}
    | {"x-amz-credential", "x-bfl-key", "xi-api-key", "x-subscription-token", "x-key", "x-fal-key", "x-rapidapi-key"}
    | {"sec-websocket-protocol", "www-authenticate", "x-hub-signature", "x-hub-signature-256", "x-signature"}
)
"""Headers of a request that are credentials, in lower case."""

PARAMETERS = frozenset(
    {"key", "api_key", "api-key", "apikey", "token", "access_token", "access-token", "refresh_token", "id_token", "jwt"}
    | {
        "auth",
        "authorization",
        "auth_token",
        "authtoken",
        "bearer",
        "bearer_token",
        "pat",
        "pw",
        "pwd",
        "pass",
        "passwd",
    }
    | {
        "password",
        "passphrase",
        "secret",
        "client_secret",
        "secret_key",
        "sig",
        "signature",
        "code",
        "otp",
        "assertion",
    }
    | {"x-amz-signature", "x-amz-credential", "x-amz-security-token", "awsaccesskeyid", "x-goog-signature"}
    | {
        "x-goog-credential",
        "subscription-key",
        "private_token",
        "sas",
        "sastoken",
        "session",
        "sessionid",
        "session_id",
    }
    | {"sid", "ticket", "credential", "credentials", "login", "private_key", "oauth_token", "oauth_signature", "hmac"}
    | {"id_token_hint", "client_assertion", "saml", "samlresponse", "apitoken", "api_token", "userinfo", "cookie"}
)
"""Parameters of an address that are credentials, in lower case."""

KNOWN_OPTIONS = frozenset(
    {"api_key", "azure_ad_token_provider", "azure_username", "azure_password", "client_secret", "aws_bedrock_client"}
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_web_identity_token", "aws_external_id"}
    | {"aws_bearer_token_bedrock", "vertex_credentials", "vertex_ai_credentials", "gcs_path_service_account"}
    | {"anthropic_identity_token", "anthropic_identity_token_file", "openai_identity_token_file", "chatgpt_auth_file"}
    | {"anthropic_issuer_signing_key_ref", "anthropic_keycloak_client_secret_ref", "s3_access_key_id"}
    | {"s3_secret_access_key", "langfuse_secret", "langfuse_secret_key", "langfuse_public_key", "langsmith_api_key"}
    | {"humanloop_api_key", "arize_api_key", "arize_space_key", "posthog_api_key", "wandb_api_key", "dd_api_key"}
    | {"newrelic_api_key", "signoz_ingestion_key", "secret_fields", "_litellm_internal_model_credentials"}
    | {"litellm_trusted_callback_vars"}
)
"""Options that LiteLLM and DSPy take for credentials, whoever the provider is, and send to nobody in a request."""

KNOWN_OF = {
    "azure_ad_token": "azure",
    "gigachat_access_token": "gigachat",
    "gigachat_credentials": "gigachat",
    "hf_token": "huggingface",
    "oci_key": "oci",
    "oci_key_file": "oci",
    "oci_signer": "oci",
    "watsonx_apikey": "watsonx",
    "watsonx_token": "watsonx",
    "watsonx_zenapikey": "watsonx",
    "zen_api_key": "watsonx",
}
"""Options that are credentials with one provider, and with any other part of what is sent.

Whose they are (`oci_tenancy`, `oci_user`) says which model is asked, and is none.
"""

KNOWN_HEADERS = HEADERS - {"x-portkey-virtual-key", "sec-websocket-protocol", "www-authenticate", "token", "x-key"}
"""Headers that say who asks, and nothing else; a virtual key names a provider too."""

KNOWN_PARAMETERS = PARAMETERS - {
    *("auth", "pass", "pw", "code", "otp", "assertion", "session", "sessionid", "session_id", "sid", "ticket", "login"),
    *("saml", "samlresponse", "userinfo", "cookie", "bearer", "pat", "id_token_hint"),
}
"""Parameters of an address that say who asks, and nothing else: `code` and `session` may be anything."""

NOT_SECRET = frozenset(
    {"bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token", "prompt_cache_key"}
    | {"cache_key", "preset_cache_key", "default_api_key_rpm_limit", "default_api_key_tpm_limit", "page_token"}
    | {"pagetoken", "gdc_token_caching", "litellm_credential_name", "s3_encryption_key_id", "primary_key", "sort_key"}
    | {"configurable_clientside_auth_params", "use_xai_oauth", "anthropic_keycloak_auth_method", "gigachat_auth_url"}
    | {
        "anthropic_keycloak_token_url",
        "github_copilot_auth_type",
        "_code_interpreter_interception_sandbox_key",
        "token_type",
        "auth_type",
    }
    | {"idempotency-key", "x-idempotency-key", "sec-websocket-key", "session_id", "litellm_session_id"}
)
"""Names that sound like secrets, and hold none."""

HEADER_OPTIONS = frozenset({"headers", "extra_headers", "default_headers", "provider_specific_header", "http_headers"})
"""The options of a call that are headers."""

QUERY_OPTIONS = frozenset({"extra_query", "default_query", "query", "query_params"})
"""The options of a call that are parameters of an address."""

_SECRET_WORD = re.compile(
    r"(?:^|[_\-.])(?:"
    r"api[_\-]?keys?|apikey|authorization|bearer|password|passwd|passphrase|pwd|secrets?|credentials?|cookies?|jwt|"
    r"private[_\-]?key|signing[_\-]?key|master[_\-]?key|service[_\-]?key|encryption[_\-]?key|account[_\-]?key|"
    r"(?:secret[_\-])?access[_\-]?key(?:[_\-]id)?|ssh[_\-]?key|"
    r"(?:access|refresh|session|auth|id|ad|security|bearer|api|hf|csrf|xsrf|identity|web_identity)[_\-]?token"
    r")(?:$|[_\-.])",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[_\-.\s]+")
_DOUBTFUL_WORDS = frozenset(
    {"pass", "passcode", "passphrase", "passwd", "password", "pwd", "pw", "pin", "pat", "otp", "totp", "sas", "sig"}
    | {"hmac", "bearer", "cred", "creds", "license", "licence", "tok", "dsn", "secret", "jwt", "auth"}
)
"""Words that a name may have for a secret, wherever they stand in it."""
_DOUBTFUL_ENDS = frozenset({"key", "keys", "token", "signature", "login"})
"""Words that it ends with; `keyword` and `max_tokens` do not."""
_DOUBTFUL = ("connection_string", "conn_str", "access_code", "auth_code")
_IN_HEADER = (
    "key",
    "token",
    "auth",
    "secret",
    "cookie",
    "session",
    "credential",
    "password",
    "passwd",
    "signature",
    "jwt",
)
_OF_VARIABLE = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_PASSWD", "_PASS", "_PAT", "_PWD", "_CREDENTIALS", "_APIKEY")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell whether what has this name holds a secret (`api_key`, `aws_session_token`, `clientSecret`, ...).

    `max_tokens`, `prompt_cache_key` and the like are not secrets.
    """
    lowered = name.lower()
    if lowered in NOT_SECRET:
        return False
    return lowered in OPTIONS or _SECRET_WORD.search(_HUMP.sub("_", name)) is not None


@lru_cache(maxsize=4096)
def sounds_secret(name: str) -> bool:
    """Tell whether what has this name may hold a secret. It costs nothing to say so of what is only hashed for it."""
    if is_secret_name(name):
        return True
    plain = "_".join(_WORD.split(_HUMP.sub("_", name))).lower()
    if plain in NOT_SECRET or name.lower() in NOT_SECRET:
        return False
    words = plain.split("_")
    return words[-1] in _DOUBTFUL_ENDS or not _DOUBTFUL_WORDS.isdisjoint(words) or plain.endswith(_DOUBTFUL)


@lru_cache(maxsize=4096)
def is_secret_header(name: str) -> bool:
    """Tell whether an HTTP header holds a secret. In doubt it does."""
    lowered = name.lower()
    if lowered in NOT_SECRET:
        return False
    return lowered in HEADERS or any(word in lowered for word in _IN_HEADER) or sounds_secret(name)


@lru_cache(maxsize=4096)
def is_secret_parameter(name: str) -> bool:
    """Tell whether a parameter of an address holds a secret. In doubt it does."""
    lowered = name.lower()
    return lowered in PARAMETERS or is_secret_header(lowered) or is_secret_name(name)


@lru_cache(maxsize=4096)
def is_secret_variable(name: str) -> bool:
    """Tell whether a variable of the environment holds a secret."""
    return is_secret_name(name) or name.upper().endswith(_OF_VARIABLE)


@lru_cache(maxsize=4096)
def is_known_credential(name: str) -> bool:
    """Tell whether what has this name only says who asks: LiteLLM's options, and `..._API_KEY` as variables are called.

    What merely sounds like a secret may decide something: a field `token` of a question, a list of stop `tokens`.
    """
    lowered = name.lower()
    return lowered.endswith("_api_key") or any(
        lowered in names for names in (KNOWN_OPTIONS, KNOWN_OF, KNOWN_HEADERS, _SETTINGS)
    )
