"""Readers of tables: TSV, CSV, workbooks, Parquet, and the guess of what each column holds."""

__all__ = ["columns", "csv", "csv_lenient", "header_words", "parquet", "tsv", "xlsx"]
