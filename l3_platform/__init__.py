"""L3 Platform: raw web crawl to a trained, evaluated language model, every artifact an asset with lineage."""
