"""`meco`: how independent are the channels of each layer? (Jiang et al., "MeCo", NeurIPS 2023, section 4.)"""

from compactor.passes.search.proxies.subject import Proxy, Subject


def meco(subject: Subject) -> float:
    """The sum of `independence` over all layers with weights, the mean over batches and initialisations."""
    return sum(o.independence for o in subject.observed) / len(subject.observed)


PROXY = Proxy("meco", meco, needs=frozenset({"independence"}))
