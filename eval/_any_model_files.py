# ruff: noqa: E501, RUF001 - the files keep the style of their kind
"""Small model files in the styles of public repositories, each written for this evaluation.

Every entry is a whole file in LEMUR's contract. ``JOIN`` lists files that work alone and must work as experts; ``STAND``
those that must be refused, each with a part of the reason.
"""

from __future__ import annotations

from textwrap import dedent, indent

_TRAINING = """
    def train_setup(self, prm):
        self.to(self.device)
        self.criteria = (nn.CrossEntropyLoss().to(self.device),)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm['lr'], momentum=prm['momentum'])

    def learn(self, train_data):
        self.train()
        for inputs, labels in train_data:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            loss = self.criteria[0](self(inputs), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 3)
            self.optimizer.step()


def supported_hyperparameters():
    return {'lr', 'momentum'}
"""


INIT = "self.body = nn.Conv2d(channels, 8, 3)\nself.fc = nn.Linear(8, classes)"


def _file(
    head: str = "", init: str = INIT, forward: str = "return self.fc(self.body(x).mean((2, 3)))", tail: str = ""
) -> str:
    """Write a file: imports, ``head``, then ``Net`` with the statements of ``__init__`` and ``forward``."""
    return (
        f"import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n{dedent(head)}\n\n"
        "class Net(nn.Module):\n\n"
        "    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:\n"
        "        super(Net, self).__init__()\n        self.device = device\n"
        "        channels, classes = in_shape[1], out_shape[0]\n"
        f"{indent(dedent(init).strip(), ' ' * 8)}\n\n    def forward(self, x):\n"
        f"{indent(dedent(forward).strip(), ' ' * 8)}\n{_TRAINING}{dedent(tail)}"
    )


JOIN = {
    # Settings drive the architecture.
    "CfgList": _file(
        """
        cfg = {'A': [8, 'M', 16, 'M'], 'B': [8, 8, 'M', 16]}

        def make_layers(cfg, channels, batch_norm=False):
            layers = []
            for v in cfg:
                if v == 'M':
                    layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
                else:
                    conv2d = nn.Conv2d(channels, v, kernel_size=3, padding=1)
                    layers += [conv2d, nn.BatchNorm2d(v), nn.ReLU(inplace=True)] if batch_norm else [conv2d, nn.ReLU()]
                    channels = v
            return nn.Sequential(*layers)
        """,
        "self.body = make_layers(cfg['A'], channels, batch_norm=True)\nself.fc = nn.Linear(16, classes)",
    ),
    "Genotype": _file(
        """
        from collections import namedtuple
        Genotype = namedtuple('Genotype', 'normal normal_concat')
        OPS = {
            'sep_conv_3x3': lambda C, stride, affine: SepConv(C, C, 3, stride, 1, affine=affine),
            'skip_connect': lambda C, stride, affine: nn.Identity(),
            'max_pool_3x3': lambda C, stride, affine: nn.MaxPool2d(3, stride=stride, padding=1),
        }
        SMALL = Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 0), ('max_pool_3x3', 1)], normal_concat=[1, 2, 3])

        class SepConv(nn.Module):
            def __init__(self, C_in, C_out, kernel_size, stride, padding, affine=True):
                super(SepConv, self).__init__()
                self.op = nn.Sequential(nn.ReLU(inplace=False),
                    nn.Conv2d(C_in, C_in, kernel_size, stride, padding, groups=C_in, bias=False),
                    nn.Conv2d(C_in, C_out, 1, bias=False), nn.BatchNorm2d(C_out, affine=affine))
            def forward(self, x):
                return self.op(x)

        class Cell(nn.Module):
            def __init__(self, genotype, C):
                super().__init__()
                op_names, self._indices = zip(*genotype.normal)
                self._concat = genotype.normal_concat
                self._ops = nn.ModuleList([OPS[name](C, 1, True) for name in op_names])
            def forward(self, s0):
                states = [s0]
                for op, index in zip(self._ops, self._indices):
                    states.append(op(states[index]))
                return torch.cat([states[i] for i in self._concat], dim=1)
        """,
        "self.stem = nn.Conv2d(channels, 8, 3, padding=1)\nself.cell = Cell(SMALL, 8)\nself.fc = nn.Linear(24, classes)",
        "return self.fc(self.cell(self.stem(x)).mean((2, 3)))",
    ),
    "EnumConfig": _file(
        """
        import enum
        from dataclasses import dataclass, field, replace

        class Norm(str, enum.Enum):
            BATCH = 'batch'
            GROUP = 'group'

        @dataclass
        class Config:
            widths: list = field(default_factory=lambda: [8, 16])
            norm: Norm = Norm.BATCH

        def norm_layer(kind, width):
            return {Norm.BATCH: nn.BatchNorm2d, Norm.GROUP: lambda w: nn.GroupNorm(4, w)}[kind](width)
        """,
        """
        config = replace(Config(), norm=Norm('group'))
        pairs = zip([channels] + config.widths, config.widths)
        self.body = nn.Sequential(*[nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), norm_layer(config.norm, b)) for a, b in pairs])
        self.fc = nn.Linear(config.widths[-1], classes)
        """,
    ),
    "ActByName": _file(
        "ACT = 'GELU'\nPOOL = dict(avg='AdaptiveAvgPool2d', max='AdaptiveMaxPool2d')",
        """
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), getattr(nn, ACT)(), getattr(nn, POOL['max'])(4))
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "OrderedNames": _file(
        "from collections import OrderedDict",
        """
        self.body = nn.Sequential(OrderedDict([('conv0', nn.Conv2d(channels, 8, 3)), ('norm0', nn.BatchNorm2d(8))]))
        self.body.add_module('pool0', nn.MaxPool2d(2))
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "DenseConcat": _file(
        """
        from typing import List
        def _bn_function_factory(norm, relu, conv):
            def bn_function(*inputs):
                return conv(relu(norm(torch.cat(inputs, 1))))
            return bn_function
        class _Layer(nn.Module):
            def __init__(self, num_input_features: int, growth_rate: int) -> None:
                super().__init__()
                self.norm1: nn.BatchNorm2d
                self.add_module('norm1', nn.BatchNorm2d(num_input_features))
                self.add_module('conv1', nn.Conv2d(num_input_features, growth_rate, 3, padding=1, bias=False))
                self.relu = nn.ReLU(inplace=True)
            def forward(self, features: List[torch.Tensor]) -> torch.Tensor:
                return _bn_function_factory(self.norm1, self.relu, self.conv1)(*features)
        """,
        """
        self.layers = nn.ModuleList(_Layer(channels + i * 4, 4) for i in range(3))
        self.fc = nn.Linear(channels + 12, classes)
        """,
        """
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return self.fc(torch.cat(features, 1).mean((2, 3)))
        """,
    ),
    # Registries and classes.
    "RegisterModel": _file(
        """
        _model_entrypoints = {}
        def register_model(fn):
            _model_entrypoints[fn.__name__] = fn
            return fn
        def create_model(model_name, **kwargs):
            return _model_entrypoints[model_name](**kwargs)
        @register_model
        def tiny_patch4(pretrained=False, **kwargs):
            return nn.Sequential(nn.Conv2d(kwargs['in_chans'], 16, 4, 4), nn.GELU())
        """,
        "self.body = create_model('tiny_patch4', in_chans=channels)\nself.fc = nn.Linear(16, classes)",
    ),
    "MetaRegistry": _file(
        """
        class Registry(type):
            known = {}
            def __new__(mcs, name, bases, namespace, **kw):
                cls = super().__new__(mcs, name, bases, namespace)
                Registry.known[name.lower()] = cls
                return cls
        class Stem(nn.Conv2d, metaclass=Registry):
            pass
        """,
        "self.body = Registry.known['stem'](channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
    ),
    "SubclassHook": _file(
        """
        class Block(nn.Module):
            registry = []
            def __init_subclass__(cls, depth=1, **kwargs):
                super().__init_subclass__(**kwargs)
                cls.depth = depth
                cls.registry.append(cls)
        class Deep(Block, depth=3):
            def __init__(self, width):
                super().__init__()
                self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(self.depth)])
            def forward(self, x):
                for conv in self.convs:
                    x = x + F.relu(conv(x))
                return x
        """,
        "self.body = Block.registry[-1](channels)\nself.fc = nn.Linear(channels, classes)",
    ),
    "AbstractBase": _file(
        """
        from abc import ABC, abstractmethod
        class Backbone(nn.Module, ABC):
            @property
            @abstractmethod
            def width(self): ...
            @abstractmethod
            def forward(self, x): ...
        class Small(Backbone):
            def __init__(self, c):
                super().__init__()
                self.conv = nn.Conv2d(c, self.width, 3)
            @property
            def width(self):
                return 8
            def forward(self, x):
                return F.leaky_relu(self.conv(x), .1)
        """,
        "self.body = Small(channels)\nself.fc = nn.Linear(self.body.width, classes)",
    ),
    "GenericBlock": _file(
        """
        from typing import Callable, Generic, Optional, TypeVar
        T = TypeVar('T', bound=nn.Module)
        class Residual(nn.Module, Generic[T]):
            inner: T
            def __init__(self, inner: T, scale: Optional[float] = None) -> None:
                super().__init__()
                self.inner, self.scale = inner, scale or 1.
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.scale * self.inner(x)
        """,
        "self.body = Residual[nn.Conv2d](nn.Conv2d(channels, channels, 3, padding=1), .5)\nself.fc = nn.Linear(channels, classes)",
    ),
    "Mixins": _file(
        """
        class Scaled:
            gain = 2.
            def forward(self, x):
                return super().forward(x) * self.gain
        class Clamped:
            def forward(self, x):
                return super().forward(x).clamp(-3, 3)
        class Conv(Clamped, Scaled, nn.Conv2d):
            pass
        """,
        "self.body = Conv(channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
    ),
    "ClassDecorator": _file(
        """
        def with_skip(cls):
            original = cls.forward
            def forward(self, x):
                return torch.cat([x, original(self, x)], dim=1)
            cls.forward = forward
            return cls
        @with_skip
        class Conv(nn.Conv2d):
            pass
        """,
        "self.body = Conv(channels, 8, 3, padding=1)\nself.fc = nn.Linear(channels + 8, classes)",
    ),
    "NestedClasses": _file(
        """
        class Stage(nn.Module):
            class Unit(nn.Module):
                expansion = 2
                def __init__(self, c):
                    super(Stage.Unit, self).__init__()
                    self.conv = nn.Conv2d(c, c * self.expansion, 1)
                def forward(self, x):
                    return F.relu(self.conv(x))
            def __init__(self, c):
                super().__init__()
                self.unit = self.Unit(c)
                self.out = c * Stage.Unit.expansion
            def forward(self, x):
                return self.unit(x)
        """,
        "self.body = Stage(channels)\nself.fc = nn.Linear(self.body.out, classes)",
    ),
    "AliasNet": _file("", "self.body = nn.Conv2d(channels, 8, 3)\nself.fc = nn.Linear(8, classes)")
    .replace("class Net(", "class TinyClassifier(")
    .replace("super(Net, self)", "super(TinyClassifier, self)")
    + "\n\nNet = TinyClassifier\n",
    # Weights.
    "InitByClassName": _file(
        """
        def weights_init(m):
            classname = m.__class__.__name__
            if classname.find('Conv') != -1:
                nn.init.normal_(m.weight.data, 0.0, 0.02)
            elif classname.find('BatchNorm') != -1:
                nn.init.normal_(m.weight.data, 1.0, 0.02)
                nn.init.constant_(m.bias.data, 0)
        """,
        """
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, classes)
        self.apply(weights_init)
        """,
    ),
    "SpectralNorm": _file(
        "from torch.nn.utils import spectral_norm",
        "self.body = spectral_norm(nn.Conv2d(channels, 8, 3))\nself.fc = spectral_norm(nn.Linear(8, classes))",
    ),
    "Parametrized": _file(
        """
        from torch.nn.utils import parametrize
        class Symmetric(nn.Module):
            def forward(self, X):
                return X.triu() + X.triu(1).transpose(-1, -2)
        """,
        """
        self.body = nn.Conv2d(channels, 8, 3)
        parametrize.register_parametrization(self.body, 'weight', Symmetric())
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "TiedWeights": _file(
        "",
        """
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
        self.body[2].weight = self.body[1].weight
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "ParameterLists": _file(
        "",
        """
        self.mix = nn.ParameterList([nn.Parameter(torch.randn(channels, 8)) for _ in range(3)])
        self.gains = nn.ParameterDict({'first': nn.Parameter(torch.ones(8)), 'last': nn.Parameter(torch.zeros(1))})
        self.fc = nn.Linear(8, classes)
        """,
        """
        out = sum(torch.einsum('bchw,cd->bdhw', x, w) for w in self.mix) * self.gains['first'].view(1, -1, 1, 1)
        return self.fc(out.mean((2, 3))) + self.gains['last']
        """,
    ),
    "Standardized": _file(
        """
        class WSConv2d(nn.Conv2d):
            def __init__(self, *args, eps=1e-4, **kwargs):
                super().__init__(*args, **kwargs)
                self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
                self.eps = eps
            def forward(self, x):
                w = self.weight
                std, mean = torch.std_mean(w, dim=(1, 2, 3), keepdim=True, unbiased=False)
                w = self.gain * (w - mean) / (std + self.eps)
                return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)
        """,
        "self.body = WSConv2d(channels, 8, 3, padding=1)\nself.fc = nn.Linear(8, classes)",
    ),
    "FrozenStem": _file(
        "",
        """
        self.backbone = nn.Conv2d(channels, 8, 3)
        self.head = nn.Linear(8, classes)
        for name, param in self.named_parameters():
            if name.startswith('backbone'):
                param.requires_grad = False
        """,
        "return self.head(self.backbone(x).relu().mean((2, 3)))",
    ),
    "Copies": _file(
        """
        import copy
        def clones(module, N):
            return nn.ModuleList([copy.deepcopy(module) for _ in range(N)])
        """,
        """
        self.stem = nn.Conv2d(channels, 8, 3)
        self.layers = clones(nn.Conv2d(8, 8, 3, padding=1), 3)
        self.fc = nn.Linear(8, classes)
        """,
        """
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x).relu()
        return self.fc(x.mean((2, 3)))
        """,
    ),
    # Attention and its relatives.
    "PatchTransformer": _file(
        """
        from functools import partial
        class PreNorm(nn.Module):
            def __init__(self, dim, fn):
                super().__init__()
                self.norm, self.fn = nn.LayerNorm(dim), fn
            def forward(self, x, **kwargs):
                return self.fn(self.norm(x), **kwargs)
        class Attention(nn.Module):
            def __init__(self, dim, heads=2):
                super().__init__()
                self.heads, self.scale = heads, (dim // heads) ** -0.5
                self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
            def forward(self, x):
                b, n, d = x.shape
                q, k, v = self.to_qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
                attn = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
                return (attn @ v).transpose(1, 2).reshape(b, n, d)
        norm_layer = partial(nn.LayerNorm, eps=1e-6)
        """,
        """
        side = in_shape[2] // 4
        self.patch = nn.Conv2d(channels, 16, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.randn(1, side * (in_shape[3] // 4) + 1, 16) * .02)
        self.blocks = nn.ModuleList([PreNorm(16, Attention(16)) for _ in range(2)])
        self.norm, self.head = norm_layer(16), nn.Linear(16, classes)
        """,
        """
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        for blk in self.blocks:
            x = x + blk(x)
        return self.head(self.norm(x)[:, 0])
        """,
    ),
    "EncoderLayers": _file(
        "",
        """
        self.patch = nn.Conv2d(channels, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.fc = nn.Linear(16, classes)
        """,
        "return self.fc(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))",
    ),
    "Mixer": _file(
        """
        pair = lambda x: x if isinstance(x, tuple) else (x, x)
        def FeedForward(dim, expansion=2, dropout=0., dense=nn.Linear):
            return nn.Sequential(dense(dim, dim * expansion), nn.GELU(), nn.Dropout(dropout), dense(dim * expansion, dim))
        """,
        """
        h, w = pair(4)
        self.patch = nn.Conv2d(channels, 16, (h, w), (h, w))
        self.tokens = FeedForward((in_shape[2] // h) * (in_shape[3] // w))
        self.widths = FeedForward(16, dropout=.1)
        self.fc = nn.Linear(16, classes)
        """,
        """
        x = self.patch(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.fc((x + self.widths(x)).mean(1))
        """,
    ),
    "SqueezeExcite": _file(
        """
        def _make_divisible(v, divisor, min_value=None):
            min_value = min_value or divisor
            new_v = max(min_value, int(v + divisor / 2) // divisor * divisor)
            return new_v + divisor if new_v < 0.9 * v else new_v
        class h_sigmoid(nn.Module):
            def forward(self, x):
                return F.relu6(x + 3) / 6
        class SELayer(nn.Module):
            def __init__(self, channel, reduction=4):
                super(SELayer, self).__init__()
                mid = _make_divisible(channel // reduction, 8)
                self.avg_pool = nn.AdaptiveAvgPool2d(1)
                self.fc = nn.Sequential(nn.Linear(channel, mid), nn.ReLU(True), nn.Linear(mid, channel), h_sigmoid())
            def forward(self, x):
                b, c, _, _ = x.size()
                return x * self.fc(self.avg_pool(x).view(b, c)).view(b, c, 1, 1)
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 16, 3), SELayer(16))\nself.fc = nn.Linear(16, classes)",
    ),
    "SpatialTransformer": _file(
        "",
        """
        self.loc = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels * 16, 6))
        self.loc[2].weight.data.zero_()
        self.loc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        """,
        """
        grid = F.affine_grid(self.loc(x).view(-1, 2, 3), x.size(), align_corners=False)
        return self.fc(self.body(F.grid_sample(x, grid, align_corners=False)).mean((2, 3)))
        """,
    ),
    "Recurrent": _file(
        "",
        "self.rnn = nn.LSTM(channels * in_shape[3], 16, batch_first=True, bidirectional=True)\nself.fc = nn.Linear(32, classes)",
        """
        self.rnn.flatten_parameters()
        out, (h, c) = self.rnn(x.permute(0, 2, 1, 3).flatten(2))
        return self.fc(out[:, -1])
        """,
    ),
    "Capsules": _file(
        """
        def squash(s, dim=-1):
            norm = torch.linalg.vector_norm(s, dim=dim, keepdim=True)
            return norm ** 2 / (1 + norm ** 2) * s / (norm + 1e-8)
        """,
        """
        self.conv = nn.Conv2d(channels, 16, 9, stride=4)
        self.W = nn.Parameter(torch.randn(1, 4, classes, 8, 4) * .1)
        """,
        """
        u = squash(F.adaptive_avg_pool2d(self.conv(x), 1).view(len(x), 4, 4))
        u_hat = (self.W @ u[:, :, None, :, None]).squeeze(-1)
        b = torch.zeros(*u_hat.shape[:3], 1, device=x.device)
        for _ in range(2):
            v = squash((b.softmax(2) * u_hat).sum(1))
            b = b + (u_hat * v.unsqueeze(1)).sum(-1, keepdim=True)
        return v.norm(dim=-1)
        """,
    ),
    "Fourier": _file(
        """
        class GlobalFilter(nn.Module):
            def __init__(self, dim, h, w):
                super().__init__()
                self.complex_weight = nn.Parameter(torch.randn(dim, h, w // 2 + 1, 2, dtype=torch.float32) * 0.02)
            def forward(self, x):
                H, W = x.shape[-2:]
                x = torch.fft.rfft2(x, norm='ortho') * torch.view_as_complex(self.complex_weight)
                return torch.fft.irfft2(x, s=(H, W), norm='ortho')
        """,
        "self.body = GlobalFilter(channels, in_shape[2], in_shape[3])\nself.fc = nn.Linear(channels, classes)",
    ),
    "Involution": _file(
        """
        class involution(nn.Module):
            def __init__(self, channels, k=3):
                super().__init__()
                self.k, self.unfold = k, nn.Unfold(k, padding=k // 2)
                self.kernel = nn.Conv2d(channels, k * k, 1)
            def forward(self, x):
                b, c, h, w = x.shape
                weight = self.kernel(x).view(b, 1, self.k ** 2, h, w)
                return (weight * self.unfold(x).view(b, c, self.k ** 2, h, w)).sum(2)
        """,
        "self.body = involution(channels)\nself.fc = nn.Linear(channels, classes)",
    ),
    # Randomness.
    "DropPath": _file(
        """
        def drop_path(x, drop_prob: float = 0., training: bool = False):
            if drop_prob == 0. or not training:
                return x
            keep_prob = 1 - drop_prob
            random_tensor = keep_prob + torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
            return x.div(keep_prob) * random_tensor.floor_()
        """,
        "self.body = nn.Conv2d(channels, channels, 3, padding=1)\nself.fc = nn.Linear(channels, classes)",
        "return self.fc((x + drop_path(self.body(x), .2, self.training)).mean((2, 3)))",
    ),
    "PythonRandom": _file(
        "import random",
        """
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(channels, classes)
        """,
        """
        for layer in self.layers:
            if not self.training or random.random() > .3:
                x = x + layer(x)
        return self.fc(x.mean((2, 3)))
        """,
    ),
    "NumpyInit": _file(
        "import numpy as np",
        """
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        with torch.no_grad():
            self.body.weight.copy_(torch.from_numpy(np.random.randn(*self.body.weight.shape) * np.sqrt(2. / 72)))
        """,
    ),
    "SeedEverything": _file(
        """
        import random
        import numpy as np
        def seed_everything(seed=1234):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            torch.cuda.manual_seed_all(seed)
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        seed_everything()
        """,
    ),
    "SeedInInit": _file(
        "", "torch.manual_seed(0)\nself.body = nn.Conv2d(channels, 8, 3)\nself.fc = nn.Linear(8, classes)"
    ),
    "OwnGenerator": _file(
        "RNG = torch.Generator().manual_seed(2147483647)",
        """
        self.register_buffer('projection', torch.randn(channels, 16, generator=RNG))
        self.fc = nn.Linear(16, classes)
        """,
        "return self.fc(torch.tanh(x.mean((2, 3)) @ self.projection))",
    ),
    "NoisyEvaluation": _file(
        """
        class GaussianNoise(nn.Module):
            def forward(self, x):
                return x + torch.randn_like(x) * .1
        """,
        "self.body = nn.Sequential(GaussianNoise(), nn.Conv2d(channels, 8, 3))\nself.fc = nn.Linear(8, classes)",
    ),
    # Settings of the process.
    "Benchmark": _file("torch.backends.cudnn.benchmark = True\ntorch.set_float32_matmul_precision('high')"),
    "DoublePrecision": _file(
        "torch.set_default_dtype(torch.float64)",
        forward="return self.fc(self.body(x.double()).mean((2, 3)))",
    ),
    "AnomalyMode": _file("torch.autograd.set_detect_anomaly(True)"),
    "QuietWarnings": _file("import os, warnings\nwarnings.filterwarnings('ignore')\nos.environ['KMP_DUPLICATE_LIB_OK'] = 'True'"),
    # Autograd, compilation, hooks.
    "Straight": _file(
        """
        class BinaryActivation(torch.autograd.Function):
            @staticmethod
            def forward(ctx, input):
                ctx.save_for_backward(input)
                return input.sign()
            @staticmethod
            def backward(ctx, grad_output):
                input, = ctx.saved_tensors
                return grad_output * (input.abs() <= 1)
        """,
        forward="return self.fc(BinaryActivation.apply(self.body(x)).mean((2, 3)))",
    ),
    "Checkpointed": _file(
        "from torch.utils.checkpoint import checkpoint",
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU())\nself.fc = nn.Linear(8, classes)",
        """
        x = checkpoint(self.body, x, use_reentrant=False) if self.training else self.body(x)
        return self.fc(x.mean((2, 3)))
        """,
    ),
    "ScriptedSwish": _file(
        """
        @torch.jit.script
        def swish(x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x)
        """,
        forward="return self.fc(swish(self.body(x)).mean((2, 3)))",
    ),
    "ForwardHooks": _file(
        "",
        """
        self.activations = {}
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        self.body.register_forward_hook(lambda module, inputs, output: self.activations.update(body=output.detach()))
        """,
        "out = self.body(x)\nreturn self.fc(out.mean((2, 3))) + self.activations['body'].mean()",
    ),
    "Featurizer": _file(
        """
        from torchvision.models.feature_extraction import create_feature_extractor
        class Trunk(nn.Module):
            def __init__(self, c):
                super().__init__()
                self.layer1, self.layer2 = nn.Conv2d(c, 8, 3), nn.Conv2d(8, 8, 3)
            def forward(self, x):
                return self.layer2(F.relu(self.layer1(x)))
        """,
        "self.body = create_feature_extractor(Trunk(channels), {'layer2': 'out'})\nself.fc = nn.Linear(8, classes)",
        "return self.fc(self.body(x)['out'].mean((2, 3)))",
    ),
    "Torchvision": _file(
        """
        from torchvision.ops import SqueezeExcitation, StochasticDepth, Conv2dNormActivation, Permute
        from torchvision.models import resnet18
        """,
        """
        self.body = nn.Sequential(
            Conv2dNormActivation(channels, 8, activation_layer=nn.SiLU), SqueezeExcitation(8, 4), StochasticDepth(.1, 'row'))
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "WholeResnet": _file(
        "import torchvision",
        """
        weights = None if not prm.get('pretrained') else 'DEFAULT'
        self.model = torchvision.models.shufflenet_v2_x0_5(weights=weights)
        self.model.conv1[0] = nn.Conv2d(channels, 24, 3, 2, 1, bias=False)
        self.model.fc = nn.Linear(self.model.fc.in_features, classes)
        """,
        "return self.model(x)",
    ),
    # State and laziness.
    "LazyLayers": _file(
        "",
        "self.body = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU())\nself.fc = nn.LazyLinear(classes)",
    ),
    "SizedByDummy": _file(
        "",
        """
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.ReLU(), nn.Flatten())
        with torch.no_grad():
            n_flat = self.features(torch.zeros(1, *in_shape[1:])).shape[1]
        self.fc = nn.Linear(n_flat, classes)
        """,
        "return self.fc(self.features(x))",
    ),
    "CachedGrid": _file(
        """
        _GRIDS = {}
        def coords(h, w, device):
            key = (h, w, str(device))
            if key not in _GRIDS:
                ys, xs = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing='ij')
                _GRIDS[key] = torch.stack([xs, ys]).unsqueeze(0).to(device)
            return _GRIDS[key]
        """,
        "self.body = nn.Conv2d(channels + 2, 8, 3)\nself.fc = nn.Linear(8, classes)",
        """
        grid = coords(*x.shape[2:], x.device).expand(len(x), -1, -1, -1)
        return self.fc(self.body(torch.cat([x, grid], 1)).mean((2, 3)))
        """,
    ),
    "LayerCounter": _file(
        """
        _count = 0
        def unique_name(prefix):
            global _count
            _count += 1
            return f'{prefix}_{_count}'
        """,
        """
        self.names = [unique_name('conv') for _ in range(3)]
        for i, name in enumerate(self.names):
            self.add_module(name, nn.Conv2d(channels if i == 0 else 8, 8, 3, padding=1))
        self.fc = nn.Linear(8, classes)
        """,
        """
        for name in self.names:
            x = F.relu(self._modules[name](x))
        return self.fc(x.mean((2, 3)))
        """,
    ),
    "MomentumBuffer": _file(
        "",
        """
        self.register_buffer('mean', torch.zeros(1, channels, 1, 1))
        self.register_buffer('steps', torch.tensor(0), persistent=False)
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        """,
        """
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean((0, 2, 3), keepdim=True), .1)
                self.steps += 1
        return self.fc(self.body(x - self.mean).mean((2, 3)))
        """,
    ),
    "OwnDevice": _file(
        "device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "self.body = nn.Conv2d(channels, 8, 3).to(device)\nself.fc = nn.Linear(8, classes).to(device)",
        "return self.fc(self.body(x.to(device)).mean((2, 3)))",
    ),
    "AuxiliaryHead": _file(
        """
        from typing import NamedTuple, Optional
        class Outputs(NamedTuple):
            logits: torch.Tensor
            aux: Optional[torch.Tensor] = None
        """,
        "self.body, self.aux = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)\nself.fc = nn.Linear(8, classes)",
        """
        f = self.body(x).mean((2, 3))
        return Outputs(self.fc(f), self.aux(f) if self.training else None)
        """,
    ),
    # Python itself.
    "ComputedNames": _file("", "self.body = nn.Dropout(prm['dropout'])\nself.fc = nn.Linear(channels, classes)").replace(
        "return {'lr', 'momentum'}", "names = ['lr', 'momentum']\n    names.append('dropout')\n    return set(names)"
    ),
    "MatchStatement": _file(
        """
        def build(spec, c):
            match spec:
                case ['conv', int(width), *rest] if width > 0:
                    return nn.Conv2d(c, width, *rest)
                case {'pool': size, **other}:
                    return nn.AvgPool2d(size, **other)
                case _:
                    raise ValueError(spec)
        """,
        "self.body = nn.Sequential(build(['conv', 8, 3], channels), build({'pool': 2}, 8))\nself.fc = nn.Linear(8, classes)",
    ),
    "Walrus": _file(
        "WIDTHS = [w for i in range(4) if (w := 4 * 2 ** i) < 20]\n*HEAD, LAST = WIDTHS",
        """
        self.body = nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in zip([channels, *HEAD], WIDTHS)))
        self.fc = nn.Linear(LAST, classes)
        """,
    ),
    "ExceptGroups": _file(
        """
        def load():
            try:
                raise ExceptionGroup('missing', [ImportError('apex'), KeyError('a')])
            except* ImportError as group:
                found = len(group.exceptions)
            except* KeyError:
                pass
            return found
        """,
        "self.body = nn.Conv2d(channels, 8 * load(), 3)\nself.fc = nn.Linear(8, classes)",
    ),
    "Unicode": _file(
        "Größe = 8\nε = 1e-5\ndef σ(x):\n    return torch.sigmoid(x)",
        "self.body = nn.Sequential(nn.Conv2d(channels, Größe, 3), nn.BatchNorm2d(Größe, eps=ε))\nself.fc = nn.Linear(Größe, classes)",
        "return self.fc(σ(self.body(x)).mean((2, 3)))",
    ),
    "OptionalImport": _file(
        """
        try:
            from apex.normalization import FusedLayerNorm as Norm
        except ImportError:
            Norm = nn.LayerNorm
        """,
        "self.body, self.norm = nn.Conv2d(channels, 8, 3), Norm(8)\nself.fc = nn.Linear(8, classes)",
        "return self.fc(self.norm(self.body(x).mean((2, 3))))",
    ),
    "ScriptAtEnd": _file(
        "import argparse",
        "self.body = nn.Conv2d(channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
        tail="""

        def main():
            parser = argparse.ArgumentParser()
            parser.add_argument('--batch-size', type=int, default=64)
            print(parser.parse_args())

        if __name__ == '__main__':
            main()
        """,
    ),
    "TypeHints": "from __future__ import annotations\n"
    + _file(
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from lightning import Trainer
        class Head(nn.Module):
            def __init__(self, width: int, classes: int | None = None, trainer: Trainer | None = None) -> None:
                super().__init__()
                self.fc: nn.Linear = nn.Linear(width, classes or 10)
            def forward(self, x: Tensor) -> Tensor:
                return self.fc(x)
        """,
        "self.body, self.head = nn.Conv2d(channels, 8, 3), Head(8, classes)",
        "return self.head(self.body(x).mean((2, 3)))",
    ),
    "TabsAndSemicolons": _file(
        "import math; width = int(math.pow(2, 3)); depth = 2\ndef conv(c):\n\tif c:\n\t\treturn nn.Conv2d(c, width, 3)",
        "self.body = conv(channels); self.fc = nn.Linear(width, classes)",
    ),
    "LocalImports": _file(
        "",
        """
        from functools import reduce
        import operator as op
        self.flat = reduce(op.mul, in_shape[1:], 1)
        self.fc = nn.Linear(self.flat, classes)
        """,
        "import torch.nn.functional as Fn\nreturn Fn.linear(x.flatten(1), self.fc.weight, self.fc.bias)",
    ),
    "KeywordCalls": _file(
        "",
        "self.body = nn.Conv2d(in_channels=channels, out_channels=8, kernel_size=3)\nself.fc = nn.Linear(8, classes)",
        "return self.head(features=self.body(x).mean(dim=(2, 3)))",
        tail="",
    ).replace("    def train_setup", "    def head(self, *, features):\n        return self.fc(features)\n\n    def train_setup"),
    "SetattrLayers": _file(
        "",
        """
        for i in range(3):
            setattr(self, 'layer%d' % (i + 1), nn.Conv2d(channels if i == 0 else 8, 8, 3, padding=1))
        self.fc = nn.Linear(8, classes)
        """,
        """
        for i in range(3):
            x = torch.relu(getattr(self, 'layer{}'.format(i + 1))(x))
        return self.fc(x.mean((2, 3)))
        """,
    ),
    "CallOverride": _file(
        """
        class Pipeline(nn.Module):
            def __init__(self, *stages):
                super().__init__()
                self.stages = nn.ModuleList(stages)
            def __call__(self, x):
                for stage in self.stages:
                    x = stage(x)
                return x
            def __len__(self):
                return len(self.stages)
            def __getitem__(self, i):
                return self.stages[i]
        """,
        "self.body = Pipeline(nn.Conv2d(channels, 8, 3), nn.ReLU())\nself.fc = nn.Linear(self.body[0].out_channels, classes)",
    ),
    "GetAttrFallback": _file(
        """
        class Wrapper(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner
            def __getattr__(self, name):
                try:
                    return super().__getattr__(name)
                except AttributeError:
                    return getattr(self._modules['inner'], name)
            def forward(self, x):
                return self.inner(x)
        """,
        "self.body = Wrapper(nn.Conv2d(channels, 8, 3))\nself.fc = nn.Linear(self.body.out_channels, classes)",
    ),
    "CachedFactory": _file(
        """
        from functools import lru_cache, wraps
        @lru_cache(maxsize=None)
        def table(n):
            return torch.linspace(0, 1, n)
        def trace(f):
            @wraps(f)
            def inner(*args, **kwargs):
                return f(*args, **kwargs)
            return inner
        @trace
        def scale(x):
            return x * table(x.shape[-1]).to(x.device)
        """,
        forward="return self.fc(self.body(scale(x)).mean((2, 3)))",
    ),
    "WeightUrls": _file(
        """
        from torch.hub import load_state_dict_from_url
        model_urls = {'tiny': 'https://example.org/tiny.pth'}
        def _tiny(arch, pretrained, progress, **kwargs):
            model = Net(**kwargs)
            if pretrained:
                model.load_state_dict(load_state_dict_from_url(model_urls[arch], progress=progress))
            return model
        """,
    ),
}  # fmt: skip
"""Files that work alone; each must be usable as an expert, equal to the last bit."""

STAND = {
    "EvalConfig": (
        _file(
            "",
            "m = eval('nn.Conv2d')\nself.body = m(channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
        ),
        "eval() looks names up",
    ),
    "GlobalsByName": (
        _file(
            "class BasicBlock(nn.Conv2d):\n    pass",
            "self.body = globals()['BasicBlock'](channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
        ),
        "globals() gives the names",
    ),
    "SysModules": (
        _file(
            "import sys\nclass Block(nn.Conv2d):\n    pass",
            "self.body = getattr(sys.modules[__name__], 'Block')(channels, 8, 3)\nself.fc = nn.Linear(8, classes)",
        ),
        "sys.modules",
    ),
    "Einops": (
        _file(
            "from einops.layers.torch import Rearrange",
            "self.body = Rearrange('b c h w -> b (c h w)')\nself.fc = nn.LazyLinear(classes)",
            "return self.fc(self.body(x))",
        ),
        "imports einops",
    ),
    "SiblingModule": (
        _file("from .layers import ConvBlock", "self.body = ConvBlock(channels, 8)\nself.fc = nn.Linear(8, classes)"),
        "imports from its own package",
    ),
    "DictOutput": (
        _file("", "self.fc = nn.Linear(channels, classes)", "return {'logits': self.fc(x.mean((2, 3)))}"),
        "forward returned dict",
    ),
    "ListOutput": (
        _file("", "self.fc = nn.Linear(channels, classes)", "return [self.fc(x.mean((2, 3)))]"),
        "forward returned list",
    ),
    "PatchedRelu": (
        _file("F.relu = lambda x, inplace=False: F.leaky_relu(x, .1)"),
        "it changes torch.nn.functional.relu",
    ),
    "PatchedModule": (
        _file("nn.Module.num_params = property(lambda self: sum(p.numel() for p in self.parameters()))"),
        "it changes torch.nn.modules.module.Module.num_params",
    ),
    "SeedsEachForward": (
        _file(
            "",
            forward="torch.manual_seed(0)\nreturn self.fc(F.dropout(self.body(x), .1).mean((2, 3)))",
        ),
        "seeds the generators in its forward pass",
    ),
    "SegmentationMap": (
        _file("", "self.body = nn.Conv2d(channels, classes, 1)", "return self.body(x)"),
        "forward returned",
    ),
    "TwoInputs": (
        _file("", "self.fc = nn.Linear(channels, classes)", "return self.fc(x.mean((2, 3)))").replace(
            "def forward(self, x)", "def forward(self, x, mask)"
        ),
        "cannot be called as forward(self, x)",
    ),
    "FreshWeights": (
        _file("", "self.gain = nn.Parameter(torch.empty(channels))\nself.fc = nn.Linear(channels, classes)",
              "return self.fc(x.mean((2, 3)) * self.gain)"),
        "not finite",
    ),
    "OwnSource": (
        _file(
            "import inspect, hashlib",
            """
            seed = int(hashlib.md5(inspect.getsource(Net).encode()).hexdigest()[:6], 16)
            self.fc = nn.Linear(channels, classes)
            self.fc.bias.data.fill_(seed % 1000 / 1000)
            """,
            "return self.fc(x.mean((2, 3)))",
        ),
        "another network inside a function",
    ),
    "Python314": (
        _file("type Width = int", "self.fc = nn.Linear(channels, classes)", "return self.fc(x.mean((2, 3)))"),
        "not Python",
    ),
    "NotTrained": (
        _file("", "self.fc = nn.Linear(channels, classes)", "with torch.no_grad():\n    return self.fc(x.mean((2, 3)))"),
        "does not require grad",
    ),
}  # fmt: skip
"""Files that cannot be experts, or do not work at all, with a part of the reason that must be given."""
