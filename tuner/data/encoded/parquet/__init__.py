"""Images and their labels in Parquet files, as Hugging Face keeps them."""
