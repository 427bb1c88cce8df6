"""Texts on which tokenizers are most likely to differ: scripts, digits, white space, code, odd code points."""

from __future__ import annotations

import msgspec

from airflow_openai_batch.openai_api.endpoints import Endpoint

_TEXTS = (
    "The quick brown fox jumps over the lazy dog. It's 10:45, isn't it? We'll see; they've gone, I'm sure.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich \u2013 für 1.234,56 € …",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë. Où ça ? Là-bas !",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Її їжак.",
    "いろはにほへと ちりぬるを。東京都千代田区1丁目2番3号、カタカナとひらがな。",
    "天地玄黄\uff0c宇宙洪荒。日月盈昃\uff0c辰宿列张。2024年12月31日",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 😀😀😀 ✅ → ∑ ∞ ½ ² ﬁ Å A\u030a \u200d \ufeff \u2028 \u00a0x",
    "def f(x: int) -> dict[str, Any]:\n\treturn {\n\t\t'a': [x ** 2 for x in range(10) if not x % 2],\n\t}\n\n\n",
    "SELECT * FROM t WHERE a=1 AND b<>'it''s' -- comment\r\n;\r\n\r\n   \t  \n {\"k\": [1,2,3.5e-7,null]}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0123456789012345678901234567890 !!!!!!!!???????........-----=====",
    "HTTPServer XMLHttpRequest camelCaseName snake_case_name SCREAMING_CASE iPhone7sPlus O'REILLY'S DON'T we'LL",
    " leading and trailing   spaces     \n\n  \n x\t\ty   ",
    "<|endoftext|> <|im_start|>user <|fim_prefix|> </s> [INST] \\u0041 \\n &amp; %20 https://example.com/a?b=c&d=%7B",
)


def sample_requests(model: str) -> bytes:
    """Request lines with these texts, each a chat request for this model."""
    lines = (
        {
            "custom_id": f"sample-{number}",
            "method": "POST",
            "url": Endpoint.CHAT_COMPLETIONS.value,
            "body": {"model": model, "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(_TEXTS)
    )
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
