#[path = "../../../.cache/tokenizers/lib.rs"]
mod daulet;
