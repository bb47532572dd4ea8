# ruff: noqa: E501 - the files keep the style of their kind
"""More small model files in the styles of public repositories: frameworks, tricks of training, odd corners of Python.

As in ``_any_model_files``: ``MORE_JOIN`` lists files that work alone and must work as experts, ``MORE_STAND`` those that
must be refused, each with a part of the reason. A file in bytes is decoded as Python decodes it.
"""

from __future__ import annotations

from textwrap import dedent

from _any_model_files import _TRAINING, INIT, _file

_SUPPORTED = "\n\ndef supported_hyperparameters():\n    return {'lr', 'momentum'}\n"
_METHODS = _TRAINING.partition("\n\ndef supported")[0]


def _training(setup: str, learn: str, head: str = "") -> str:
    """Write a file with ``train_setup`` and ``learn`` of its own."""
    source = _file(head, INIT)
    before, _, _ = source.partition("    def train_setup")
    methods = f"def train_setup(self, prm):\n{_shift(setup)}\n\ndef learn(self, train_data):\n    self.train()\n{_shift(learn)}"
    return before + _shift(methods) + _SUPPORTED


def _shift(text: str) -> str:
    return "".join(f"    {line}\n" if line.strip() else "\n" for line in dedent(text).strip("\n").split("\n"))


MORE_JOIN: dict[str, str | bytes] = {
    # Frameworks, by hand.
    "DefaultCfg": _file(
        """
        from copy import deepcopy
        IMAGENET_DEFAULT_MEAN = (0.485, 0.456, 0.406)

        def _cfg(url='', **kwargs):
            return {'url': url, 'num_classes': 1000, 'pool_size': (7, 7), 'crop_pct': .875, 'mean': IMAGENET_DEFAULT_MEAN,
                    'first_conv': 'stem.conv', 'classifier': 'head', **kwargs}
        default_cfgs = {'tinynet_a': _cfg(url='https://example.org/tinynet_a.pth', stages=(8, 16)), 'tinynet_b': _cfg(stages=(8,))}

        class TinyNet(nn.Module):
            def __init__(self, stages, in_chans=3, num_classes=1000, drop_rate=0.):
                super().__init__()
                self.num_classes, self.drop_rate, self.num_features = num_classes, drop_rate, stages[-1]
                self.blocks = nn.Sequential(*[nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((in_chans,) + stages, stages)])
                self.reset_classifier(num_classes)
            def get_classifier(self):
                return self.head
            def reset_classifier(self, num_classes, global_pool='avg'):
                self.head = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
            def forward_features(self, x):
                return self.blocks(x).mean((2, 3))
            def forward(self, x):
                return self.head(F.dropout(self.forward_features(x), p=self.drop_rate, training=self.training))

        def _create(variant, pretrained=False, default_cfg=None, **kwargs):
            default_cfg = deepcopy(default_cfg or default_cfgs[variant])
            kwargs.setdefault('num_classes', default_cfg['num_classes'])
            model = TinyNet(default_cfg.pop('stages'), **kwargs)
            model.default_cfg = default_cfg
            return model
        """,
        "self.model = _create('tinynet_a', in_chans=channels, num_classes=classes, drop_rate=.1)",
        "return self.model(x)",
    ),
    "RearrangeByHand": _file(
        """
        def rearrange(x, pattern, **sizes):
            left, right = (side.split() for side in pattern.split('->'))
            return x.permute(*(left.index(name) for name in right))
        class Axial(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.mix = nn.Linear(dim, dim)
            def forward(self, x):
                rows = self.mix(rearrange(x, 'b c h w -> b h w c'))
                return x + rearrange(rows, 'b h w c -> b c h w')
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 4, 4), Axial(8))\nself.fc = nn.Linear(8, classes)",
    ),
    "BuiltOnCall": _file(
        """
        class Layer(nn.Module):
            built = False
            def __call__(self, x):
                if not self.built:
                    self.build(x.shape[1:])
                    self.to(x.device)
                    self.built = True
                return super().__call__(x)
        class Dense(Layer):
            def __init__(self, units, activation=None):
                super().__init__()
                self.units, self.activation = units, activation or (lambda x: x)
            def build(self, input_shape):
                self.kernel = nn.Parameter(torch.empty(input_shape[0], self.units))
                self.bias = nn.Parameter(torch.zeros(self.units))
                nn.init.xavier_uniform_(self.kernel)
            def forward(self, x):
                return self.activation(x @ self.kernel + self.bias)
        """,
        """
        self.hidden, self.out = Dense(16, activation=torch.relu), nn.Linear(16, classes)
        self(torch.zeros(in_shape))
        """,
        "return self.out(self.hidden(x.mean((2, 3))))",
    ),
    "FastaiLambda": _file(
        """
        class Lambda(nn.Module):
            def __init__(self, func):
                super().__init__()
                self.func = func
            def forward(self, x): return self.func(x)
        class AdaptiveConcatPool2d(nn.Module):
            def __init__(self, sz=1):
                super().__init__()
                self.ap, self.mp = nn.AdaptiveAvgPool2d(sz), nn.AdaptiveMaxPool2d(sz)
            def forward(self, x): return torch.cat([self.mp(x), self.ap(x)], 1)
        def init_cnn(m):
            if getattr(m, 'bias', None) is not None: nn.init.constant_(m.bias, 0)
            if isinstance(m, (nn.Conv2d, nn.Linear)): nn.init.kaiming_normal_(m.weight)
            for l in m.children(): init_cnn(l)
        """,
        """
        self.model = nn.Sequential(Lambda(lambda x: x * 2 - 1), nn.Conv2d(channels, 8, 3, bias=False), nn.BatchNorm2d(8),
                                   AdaptiveConcatPool2d(), nn.Flatten(), nn.Linear(16, classes))
        init_cnn(self.model)
        """,
        "return self.model(x)",
    ),
    "ConfigNode": _file(
        """
        import copy
        class CfgNode(dict):
            IMMUTABLE = '__immutable__'
            def __init__(self, init_dict=None):
                super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in (init_dict or {}).items()})
                self.__dict__[CfgNode.IMMUTABLE] = False
            def __getattr__(self, name):
                if name in self:
                    return self[name]
                raise AttributeError(name)
            def __setattr__(self, name, value):
                if self.__dict__.get(CfgNode.IMMUTABLE):
                    raise AttributeError('{} is frozen'.format(name))
                self[name] = value
            def merge_from_list(self, cfg_list):
                for full_key, v in zip(cfg_list[0::2], cfg_list[1::2]):
                    d, *_, key = self, *full_key.split('.')
                    for sub in full_key.split('.')[:-1]:
                        d = d[sub]
                    d[key] = type(d[key])(v)
            def freeze(self):
                self.__dict__[CfgNode.IMMUTABLE] = True
            def clone(self):
                return copy.deepcopy(self)
        _C = CfgNode()
        _C.MODEL = CfgNode()
        _C.MODEL.STEM = CfgNode({'OUT_CHANNELS': 4, 'STRIDE': 1})
        """,
        """
        cfg = CfgNode(_C)
        cfg.merge_from_list(['MODEL.STEM.OUT_CHANNELS', '8'])
        cfg.freeze()
        self.body = nn.Conv2d(channels, cfg.MODEL.STEM.OUT_CHANNELS, 3, cfg.MODEL.STEM.STRIDE)
        self.fc = nn.Linear(cfg.MODEL.STEM.OUT_CHANNELS, classes)
        """,
    ),
    "BuildFromCfg": _file(
        """
        import inspect
        class Registry:
            def __init__(self, name):
                self._name, self._module_dict = name, dict()
            def get(self, key):
                return self._module_dict.get(key, None)
            def register_module(self, name=None, force=False, module=None):
                if module is not None:
                    self._module_dict[name or module.__name__] = module
                    return module
                return lambda cls: self.register_module(name, force, cls)
        def build_from_cfg(cfg, registry, default_args=None):
            args = {**(default_args or {}), **cfg}
            obj_type = args.pop('type')
            obj_cls = registry.get(obj_type) if isinstance(obj_type, str) else obj_type
            if not inspect.isclass(obj_cls):
                raise KeyError(f'{obj_type} is not in the {registry._name} registry')
            return obj_cls(**args)
        CONV_LAYERS, NORM_LAYERS = Registry('conv layer'), Registry('norm layer')
        CONV_LAYERS.register_module('Conv', module=nn.Conv2d)
        NORM_LAYERS.register_module('BN', module=nn.BatchNorm2d)
        @CONV_LAYERS.register_module()
        class ConvModule(nn.Module):
            def __init__(self, in_channels, out_channels, kernel_size, norm_cfg=dict(type='BN'), init_cfg=None):
                super().__init__()
                self.conv = build_from_cfg(dict(type='Conv', bias=False), CONV_LAYERS,
                    dict(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size))
                self.norm_name = 'bn'
                self.add_module(self.norm_name, build_from_cfg(norm_cfg, NORM_LAYERS, {'num_features': out_channels}))
            @property
            def norm(self):
                return getattr(self, self.norm_name)
            def forward(self, x):
                return F.relu(self.norm(self.conv(x)), inplace=True)
        """,
        """
        backbone = dict(type='ConvModule', in_channels=channels, out_channels=8, kernel_size=3)
        self.body, self.fc = build_from_cfg(backbone, CONV_LAYERS), nn.Linear(8, classes)
        """,
    ),
    "StepsOfALightningModule": _file(
        """
        class LightningModule(nn.Module):
            def training_step(self, batch, batch_idx):
                raise NotImplementedError
            def configure_optimizers(self):
                raise NotImplementedError
            def on_train_epoch_start(self):
                self.log_dict = {}
            def log(self, name, value, prog_bar=False):
                self.log_dict[name] = float(value)
            def train_setup(self, prm):
                self.hparams = dict(prm)
                self.to(self.device)
                [self.optimizer], [self.scheduler] = self.configure_optimizers()
            def learn(self, train_data):
                self.train()
                self.on_train_epoch_start()
                for batch_idx, batch in enumerate(train_data):
                    self.optimizer.zero_grad()
                    self.training_step([item.to(self.device) for item in batch], batch_idx)['loss'].backward()
                    self.optimizer.step()
                self.scheduler.step()
        class Net(LightningModule):
            def __init__(self, in_shape, out_shape, prm, device):
                super().__init__()
                self.device = device
                self.encoder, self.head = nn.Conv2d(in_shape[1], 8, 3), nn.Linear(8, out_shape[0])
            def forward(self, x):
                return self.head(self.encoder(x).relu().mean((2, 3)))
            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = F.cross_entropy(self(x), y)
                self.log('train_loss', loss.detach(), prog_bar=True)
                return {'loss': loss}
            def configure_optimizers(self):
                opt = torch.optim.AdamW(self.parameters(), lr=self.hparams['lr'])
                return [opt], [torch.optim.lr_scheduler.StepLR(opt, 1)]
        """,
        "pass",
    ).partition("\n\nclass Net(nn.Module)")[0]
    + _SUPPORTED,
    "ModelConfigFromDict": _file(
        """
        from dataclasses import asdict, dataclass, field, fields
        from typing import Any, ClassVar, Dict, Optional, Tuple
        @dataclass(frozen=True)
        class BlockArgs:
            kernel_size: int = 3
            expand_ratio: float = 1.
        @dataclass
        class GlobalParams:
            version: ClassVar[str] = 'v1'
            width_coefficient: float = 1.
            depth_divisor: int = 8
            blocks: Tuple[BlockArgs, ...] = (BlockArgs(), BlockArgs(5, 2.))
            extra: Dict[str, Any] = field(default_factory=dict, repr=False)
            head: Optional[int] = field(init=False, default=None)
            def __post_init__(self):
                self.head = int(self.width_coefficient * self.depth_divisor)
            @classmethod
            def from_dict(cls, d):
                known = {f.name for f in fields(cls) if f.init}
                return cls(**{k: v for k, v in d.items() if k in known}, extra={k: v for k, v in d.items() if k not in known})
        """,
        """
        params = GlobalParams.from_dict({'width_coefficient': 2., 'image_size': 224})
        assert asdict(params)['blocks'][1]['kernel_size'] == 5 and params.extra == {'image_size': 224}
        self.body = nn.Sequential(*(nn.Conv2d(channels if not i else params.head, params.head, b.kernel_size, padding='same')
                                    for i, b in enumerate(params.blocks)))
        self.fc = nn.Linear(params.head, classes)
        """,
    ),
    "ProtocolTyped": _file(
        """
        from typing import Iterator, Protocol, Self, TypedDict, overload, runtime_checkable
        @runtime_checkable
        class HasWidth(Protocol):
            out_width: int
            def forward(self, x: torch.Tensor) -> torch.Tensor: ...
        class StemArgs(TypedDict, total=False):
            width: int
            stride: int
        @overload
        def stem(c: int, args: StemArgs) -> nn.Module: ...
        @overload
        def stem(c: int, args: None = None) -> nn.Module: ...
        def stem(c, args=None):
            layer = nn.Conv2d(c, (args or {}).get('width', 4), 3, (args or StemArgs(stride=1))['stride'])
            layer.out_width = layer.out_channels
            return layer
        class Chain(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.steps = nn.ModuleList()
            def then(self, step: nn.Module) -> Self:
                assert isinstance(step, HasWidth), type(step)
                self.steps.append(step)
                return self
            def __iter__(self) -> Iterator[nn.Module]:
                return iter(self.steps)
            def forward(self, x):
                for step in self:
                    x = step(x).relu()
                return x
        """,
        "self.body = Chain().then(stem(channels, StemArgs(width=8, stride=2))).then(stem(8))\nself.fc = nn.Linear(4, classes)",
    ),
    # Classes.
    "NewChoosesClass": _file(
        """
        class Norm(nn.Module):
            _kinds = {}
            def __new__(cls, kind, width):
                return object.__new__(cls._kinds.get(kind, cls))
            def __init__(self, kind, width):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
            def __init_subclass__(cls, kind):
                Norm._kinds[kind] = cls
            def forward(self, x):
                return x * self.gain
        class RMSNorm(Norm, kind='rms'):
            def forward(self, x):
                return super().forward(x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6))
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), Norm('rms', 8))\nassert type(self.body[1]) is RMSNorm\nself.fc = nn.Linear(8, classes)",
    ),
    "MetaclassAndSlots": _file(
        """
        class Singleton(type):
            _instances = {}
            def __call__(cls, *args, **kwargs):
                if cls not in cls._instances:
                    cls._instances[cls] = super().__call__(*args, **kwargs)
                return cls._instances[cls]
        class Settings(metaclass=Singleton):
            __slots__ = ('width', '_depth')
            def __init__(self, width=8, depth=2):
                self.width, self._depth = width, depth
            @property
            def depth(self):
                return self._depth
            @depth.setter
            def depth(self, value):
                self._depth = max(1, int(value))
        """,
        """
        Settings().depth = 3.2
        assert Settings() is Settings(width=99)
        s = Settings()
        self.body = nn.Sequential(*[nn.Conv2d(channels if i == 0 else s.width, s.width, 3) for i in range(s.depth)])
        self.fc = nn.Linear(s.width, classes)
        """,
    ),
    "CachedProperties": _file(
        """
        from functools import cached_property, lru_cache
        class Window(nn.Module):
            def __init__(self, side):
                super().__init__()
                self.side = side
                self.bias = nn.Parameter(torch.zeros((2 * side - 1) ** 2))
            @cached_property
            def index(self):
                pos = torch.stack(torch.meshgrid(torch.arange(self.side), torch.arange(self.side), indexing='ij')).flatten(1)
                rel = pos[:, :, None] - pos[:, None] + self.side - 1
                return rel[0] * (2 * self.side - 1) + rel[1]
            @lru_cache(maxsize=8)
            def scale(self, width):
                return width ** -.5
            @property
            def device(self):
                return self.bias.device
            def forward(self, x):
                b, c, _, _ = x.shape
                q = F.adaptive_avg_pool2d(x, self.side).flatten(2).transpose(1, 2)
                attn = q @ q.transpose(1, 2) * self.scale(c) + self.bias[self.index.to(self.device)]
                return (attn.softmax(-1) @ q).mean(1)
        """,
        "self.body, self.fc = nn.Sequential(nn.Conv2d(channels, 8, 3), Window(4)), nn.Linear(8, classes)",
        "return self.fc(self.body(x))",
    ),
    "ContextManagers": _file(
        """
        from contextlib import ExitStack, contextmanager, nullcontext
        @contextmanager
        def eval_mode(module):
            was = module.training
            module.eval()
            try:
                yield module
            finally:
                module.train(was)
        class Scope:
            stack = []
            def __init__(self, name):
                self.name = name
            def __enter__(self):
                Scope.stack.append(self.name)
                return '/'.join(Scope.stack)
            def __exit__(self, *exc_info):
                Scope.stack.pop()
                return False
        """,
        """
        with ExitStack() as scopes:
            scopes.enter_context(Scope('stem'))
            self.name = scopes.enter_context(Scope('conv'))
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))
        with eval_mode(self.body), torch.no_grad():
            self.width = self.body(torch.zeros(1, *in_shape[1:])).shape[1]
        self.fc = nn.Linear(self.width, classes)
        """,
        "with nullcontext() if self.training else torch.no_grad():\n    return self.fc(self.body(x).mean((2, 3)))",
    ),
    "GeneratorsOfLayers": _file(
        """
        import itertools
        from collections import deque
        from itertools import accumulate, chain, pairwise, repeat, starmap
        def stage(width, depth):
            for _ in range(depth):
                yield nn.Conv2d(width, width, 3, padding=1)
                yield nn.ReLU(inplace=True)
        def trunk(channels, widths):
            for a, b in pairwise(chain([channels], widths)):
                yield nn.Conv2d(a, b, 3, stride=2, padding=1)
                yield from stage(b, 1)
            return b
        """,
        """
        widths = list(accumulate(repeat(4, 3)))
        self.body = nn.Sequential(*trunk(channels, widths))
        self.heads = nn.ModuleList(starmap(nn.Linear, zip(repeat(widths[-1]), itertools.islice(itertools.cycle([classes]), 2))))
        deque((nn.init.zeros_(head.bias) for head in self.heads), maxlen=0)
        """,
        "f = self.body(x).mean((2, 3))\nreturn sum(head(f) for head in self.heads) / len(self.heads)",
    ),
    "CountersOfTheClass": _file(
        """
        class Block(nn.Module):
            count, total = 0, 3
            def __init__(self, width):
                super().__init__()
                self.rate = .2 * Block.count / (Block.total - 1)
                type(self).count += 1
                self.conv = nn.Conv2d(width, width, 3, padding=1)
            def forward(self, x):
                if self.training and torch.rand(1).item() < self.rate:
                    return x
                return x + self.conv(x)
            @classmethod
            def reset(cls):
                cls.count = 0
        """,
        "Block.reset()\nself.body = nn.Sequential(*(Block(channels) for _ in range(Block.total)))\nself.fc = nn.Linear(channels, classes)",
    ),
    "ClosuresOverLayers": _file(
        """
        def residual(*layers):
            body = nn.Sequential(*layers)
            def apply(x):
                return x + body(x)
            apply.module = body
            return apply
        def compose(*fs):
            return lambda x: x if not fs else compose(*fs[1:])(fs[0](x))
        """,
        """
        first, second = (residual(nn.Conv2d(channels, channels, 3, padding=1), nn.GELU()) for _ in range(2))
        self.owned = nn.ModuleList([first.module, second.module])
        self.run, self.fc = compose(first, second), nn.Linear(channels, classes)
        """,
        "return self.fc(self.run(x).mean((2, 3)))",
    ),
    "MadeNet": _file(
        """
        def make_net(width=8):
            class TinyClassifier(nn.Module):
                def __init__(self, in_shape, out_shape, prm, device):
                    super().__init__()
                    self.device = device
                    self.body, self.fc = nn.Conv2d(in_shape[1], width, 3), nn.Linear(width, out_shape[0])
                def forward(self, x):
                    return self.fc(self.body(x).relu().mean((2, 3)))
                def train_setup(self, prm):
                    self.optimizer = torch.optim.SGD(self.parameters(), lr=prm['lr'])
                def learn(self, train_data):
                    for x, y in train_data:
                        self.optimizer.zero_grad()
                        F.cross_entropy(self(x), y).backward()
                        self.optimizer.step()
            return TinyClassifier
        Net: type = make_net(width=16)
        """,
        "pass",
    ).partition("\n\nclass Net(nn.Module)")[0]
    + _SUPPORTED,
    "BaseAfterADecorator": _file(
        """
        import functools
        def configurable(*, width):
            def wrap(cls):
                init = cls.__init__
                @functools.wraps(init)
                def __init__(self, *args, **kwargs):
                    init(self, *args, **{'width': width, **kwargs})
                cls.__init__ = __init__
                return cls
            return wrap
        @configurable(width=8)
        class Classifier(nn.Module):
            def __init__(self, channels, classes, *, width):
                super().__init__()
                self.body, self.fc = nn.Conv2d(channels, width, 3), nn.Linear(width, classes)
        """,
        "",
    )
    .replace("class Net(nn.Module)", "class Net(Classifier)")
    .replace("super(Net, self).__init__()", "super().__init__(in_shape[1], out_shape[0])"),
    "SequentialNet": _file("", "")
    .replace("class Net(nn.Module)", "class Net(nn.Sequential)")
    .replace(
        "super(Net, self).__init__()",
        "nn.Sequential.__init__(self, nn.Conv2d(in_shape[1], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                               nn.Linear(8, out_shape[0]))",
    )
    .replace("return self.fc(self.body(x).mean((2, 3)))", "for layer in self:\n            x = layer(x)\n        return x"),
    "ResNetSubclass": _file("from torchvision.models.resnet import BasicBlock, ResNet", "self.maxpool = nn.Identity()", "return super().forward(x)")
    .replace("class Net(nn.Module)", "class Net(ResNet)")
    .replace("super(Net, self).__init__()", "super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=out_shape[0])"),
    "ForwardByAnotherName": _file("", INIT)
    .replace("def forward(self, x)", "def _forward_impl(self, x)")
    .replace("    def train_setup", "    forward = _forward_impl\n\n    def train_setup"),
    "ForwardChosenInInit": _file("", f"{INIT}\nself.forward = self.forward_train if prm.get('flag', True) else self.forward_infer")
    .replace("def forward(self, x)", "def forward_train(self, x)")
    .replace("    def train_setup", "    def forward_infer(self, x):\n        return self.forward_train(x).softmax(1)\n\n    def train_setup"),
    "MethodsAttachedLater": _file("", INIT).partition("    def train_setup")[0]
    + dedent(_METHODS).replace("\ndef learn", "\n\ndef learn")
    + "\n\nNet.train_setup = train_setup\nNet.learn = learn\n"
    + _SUPPORTED,
    "SupportedIsALambda": _file("", INIT).replace(
        "def supported_hyperparameters():\n    return {'lr', 'momentum'}",
        "supported_hyperparameters = lambda: dict(lr=(1e-4, 1e-1), momentum=(.5, .99)).keys()",
    ),
    "UpdatesItsDict": _file(
        """
        class Head(nn.Module):
            def __init__(self, **kwargs):
                super().__init__()
                self.__dict__.update({'act': F.relu, 'bias': True, **kwargs})
                vars(self)['made'] = True
                self.fc = nn.Linear(self.width, self.classes, bias=self.bias)
            def __repr__(self):
                return f'{type(self).__name__}({self.width})'
            def forward(self, x):
                return self.fc(self.act(x))
        """,
        "self.body, self.head = nn.Conv2d(channels, 8, 3), Head(width=8, classes=classes, act=torch.tanh)",
        "return self.head(self.body(x).mean((2, 3)))",
    ),
    "DataclassModule": _file(
        """
        from dataclasses import dataclass
        @dataclass(eq=False)
        class Block(nn.Module):
            width: int
            kernel: int = 3
            def __post_init__(self):
                super().__init__()
                self.conv = nn.Conv2d(self.width, self.width, self.kernel, padding=self.kernel // 2, groups=self.width)
            def forward(self, x):
                return x + self.conv(x)
        """,
        "self.body, self.fc = nn.Sequential(Block(channels), Block(width=channels, kernel=5)), nn.Linear(channels, classes)",
    ),
    # Modes, devices and inputs.
    "TrainReturnsNothing": _file("", "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))\nself.fc = nn.Linear(8, classes)").replace(
        "    def train_setup",
        "    def train(self, mode=True):\n        super(Net, self).train(mode)\n        if mode:\n            for m in self.modules():\n"
        "                if isinstance(m, nn.BatchNorm2d):\n                    m.eval()\n\n    def train_setup",
    ),
    "OwnToMethod": _file(
        "",
        f"{INIT}\nself.anchors = torch.linspace(0, 1, 8)",
        "return self.fc(self.body(x).mean((2, 3)) * self.anchors.to(x.device))",
    ).replace(
        "    def train_setup",
        "    def to(self, device):\n        super().to(device)\n        self.anchors = self.anchors.to(device)\n        return self\n\n    def train_setup",
    ),
    "InputInPlace": _file(
        "",
        f"self.register_buffer('mean', torch.tensor([.5] * channels).view(1, -1, 1, 1))\n{INIT}",
        "x.sub_(self.mean).div_(0.25)\nreturn self.fc(self.body(x).mean((2, 3)))",
    ),
    "ReluFirst": _file(
        "",
        "self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, 8, 3))\nself.fc = nn.Linear(8, classes)",
    ),
    "InputThroughData": _file("", INIT, "x.data.clamp_(0.2, 0.8)\nreturn self.fc(self.body(x).mean((2, 3)))"),
    "TargetsForTheLoss": _file(
        "",
        INIT,
        """
        logits = self.fc(self.body(x).mean((2, 3)))
        return logits if targets is None else F.cross_entropy(logits, targets, label_smoothing=.1)
        """,
    ).replace("def forward(self, x)", "def forward(self, x, targets=None, *, return_features: bool = False)"),
    "DataParallelWrapped": _file(
        "",
        """
        model = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU())
        self.body = nn.DataParallel(model)
        self.fc = nn.Linear(self.body.module[0].out_channels, classes)
        """,
    ),
    "ChannelsLastCalls": _file(
        "",
        f"{INIT}\nself.to(memory_format=torch.channels_last)",
        "x = x.contiguous(memory_format=torch.channels_last)\nreturn self.fc(self.body(x).contiguous().view(len(x), 8, -1).mean(2))",
    ),
    "MetaThenEmpty": _file(
        "from torch.nn.utils import skip_init",
        """
        with torch.device('meta'):
            self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))
        self.body.to_empty(device='cpu')
        for m in self.body:
            m.reset_parameters()
        self.fc = skip_init(nn.Linear, 8, classes)
        nn.init.trunc_normal_(self.fc.weight, std=.02)
        nn.init.zeros_(self.fc.bias)
        """,
    ),
    "HalfInside": _file(
        "",
        INIT,
        """
        with torch.autocast(device_type=x.device.type, dtype=torch.bfloat16):
            x = self.body(x).mean((2, 3))
            return self.fc(x)
        """,
    ),
    "OldAutocast": _file(
        "from torch.cuda.amp import autocast",
        INIT,
        "with autocast(enabled=False):\n    return self.fc(self.body(x.float()).mean((2, 3)))",
    ),
    "OldIdioms": '"""Python 2 and 3."""\nfrom __future__ import absolute_import, division, print_function\n'
    + _file(
        """
        from torch.autograd import Variable
        import torch.nn.init as init
        """,
        """
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
                m.weight.data.normal_(0, (2. / n) ** .5)
                m.bias.data.zero_()
            elif isinstance(m, nn.Linear):
                init.orthogonal_(m.weight.data, gain=1)
        """,
        """
        h = Variable(torch.zeros(x.size(0), 8)).type_as(x)
        h = h + F.avg_pool2d(F.tanh(self.body(x)), kernel_size=tuple(self.body(x).size()[2:])).view(x.size(0), -1)
        return self.fc(h)
        """,
    ),
    "FixedAt224": _file(
        "",
        """
        self.img_size = 224
        self.patch = nn.Conv2d(channels, 8, 32, 32)
        self.pos_embed = nn.Parameter(torch.zeros(1, (self.img_size // 32) ** 2, 8))
        self.fc = nn.Linear(8, classes)
        """,
        """
        assert x.shape[-1] == self.img_size, f"Input image size ({x.shape[-1]}) doesn't match model ({self.img_size})."
        return self.fc((self.patch(x).flatten(2).transpose(1, 2) + self.pos_embed).mean(1))
        """,
    ),
    "FixedAt28": _file(
        "",
        """
        self.conv1, self.conv2 = nn.Conv2d(channels, 10, kernel_size=5), nn.Conv2d(10, 20, kernel_size=5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, classes)
        """,
        """
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))
        """,
    ),
    # Hooks, graphs and compilers.
    "RemovedHooks": _file(
        "",
        """
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3))
        widths, handles = [], []
        for module in self.body.children():
            handles.append(module.register_forward_hook(lambda m, i, o: widths.append(o.shape[1])))
        with torch.no_grad():
            self.body(torch.zeros(1, *in_shape[1:]))
        for handle in handles:
            handle.remove()
        self.fc = nn.Linear(widths[-1], classes)
        """,
    ),
    "GradientHooks": _file(
        "",
        f"""
        {INIT.replace(chr(10), chr(10) + " " * 8)}
        self.gradients = None
        self.body.weight.register_hook(lambda grad: grad.clamp(-1, 1))
        self.fc.register_full_backward_hook(lambda module, grad_in, grad_out: None)
        """,
        """
        f = self.body(x)
        if f.requires_grad:
            f.register_hook(lambda grad: setattr(self, 'gradients', grad.detach()))
        return self.fc(f.mean((2, 3)))
        """,
    ),
    "RewrittenGraph": _file(
        """
        import torch.fx as fx
        import operator
        class Trunk(nn.Module):
            def __init__(self, c):
                super().__init__()
                self.conv, self.act = nn.Conv2d(c, 8, 3, padding=1), nn.ReLU()
            def forward(self, x):
                y = self.act(self.conv(x))
                return y + torch.sigmoid(y)
        def swap_activations(gm):
            for node in gm.graph.nodes:
                if node.op == 'call_module' and isinstance(gm.get_submodule(node.target), nn.ReLU):
                    gm.add_submodule(node.target, nn.Hardswish())
                elif node.target is operator.add:
                    node.target = torch.mul
            gm.graph.lint()
            gm.recompile()
            return gm
        """,
        "self.body = swap_activations(fx.symbolic_trace(Trunk(channels)))\nself.fc = nn.Linear(8, classes)",
    ),
    "ScriptedBlock": _file(
        """
        from typing import Dict, List, Optional
        def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
            b, c, h, w = x.size()
            return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        class Block(nn.Module):
            __constants__ = ['groups']
            def __init__(self, width: int, groups: int = 2):
                super().__init__()
                self.groups = groups
                self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1, groups=groups) for _ in range(2)])
            def forward(self, x: torch.Tensor, skip: Optional[torch.Tensor] = None) -> torch.Tensor:
                outputs: List[torch.Tensor] = []
                for conv in self.convs:
                    x = channel_shuffle(F.relu(conv(x)), self.groups)
                    outputs.append(x)
                total = torch.stack(outputs).sum(0)
                return total if skip is None else total + skip
        """,
        "self.stem, self.body = nn.Conv2d(channels, 8, 3), torch.jit.script(Block(8))\nself.fc = nn.Linear(8, classes)",
        "return self.fc(self.body(self.stem(x)).mean((2, 3)))",
    ),
    "ScriptedWithPostponedHints": "from __future__ import annotations\n"
    + _file(
        """
        from torch import Tensor
        class Gate(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.conv = nn.Conv2d(width, width, 1)
            def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
                return x * torch.sigmoid(self.conv(x)) * scale
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), torch.jit.script(Gate(8)))\nself.fc = nn.Linear(8, classes)",
    ),
    "TracedBlock": _file(
        "",
        """
        block = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU())
        self.body = torch.jit.trace(block, torch.zeros(1, channels, in_shape[2], in_shape[3]))
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "CompileBehindAFlag": _file(
        "USE_COMPILE = torch.cuda.is_available() and hasattr(torch, 'compile')",
        """
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        if USE_COMPILE:
            self.body = torch.compile(self.body, mode='reduce-overhead')
        """,
    ),
    "CompilerDisabled": _file(
        """
        import torch._dynamo
        torch._dynamo.config.suppress_errors = True
        @torch.compiler.disable
        def pooled(x):
            return x.mean((2, 3))
        """,
        "self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)",
        "return self.fc(pooled(self.body(x)))",
    ),
    "WrappedInCompile": _file(
        "",
        "self.body = torch.compile(nn.Conv2d(channels, 8, 3), disable=True)\nself.fc = nn.Linear(8, classes)",
    ),
    "OptionalCheckpoint": _file(
        """
        import torch.utils.checkpoint as cp
        class Dense(nn.Module):
            def __init__(self, width, memory_efficient):
                super().__init__()
                self.memory_efficient = memory_efficient
                self.norm, self.conv, self.drop = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1), nn.Dropout(.1)
            def forward(self, x):
                def run(*inputs):
                    return self.drop(self.conv(F.relu(self.norm(inputs[0]))))
                if self.memory_efficient and x.requires_grad:
                    return x + cp.checkpoint(run, x, use_reentrant=True)
                return x + run(x)
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), Dense(8, True), Dense(8, False))\nself.fc = nn.Linear(8, classes)",
    ),
    # Weights.
    "Pruned": _file(
        "import torch.nn.utils.prune as prune",
        f"""
        {INIT.replace(chr(10), chr(10) + " " * 8)}
        prune.l1_unstructured(self.body, name='weight', amount=.3)
        prune.random_structured(self.fc, 'weight', amount=2, dim=1)
        prune.remove(self.fc, 'weight')
        """,
    ),
    "WeightNormed": _file(
        """
        import warnings
        from torch.nn.utils import weight_norm
        from torch.nn.utils.parametrizations import orthogonal, weight_norm as new_weight_norm
        """,
        """
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.body = weight_norm(nn.Conv2d(channels, 8, 3), dim=0)
        self.mid = orthogonal(nn.Linear(8, 8, bias=False))
        self.fc = new_weight_norm(nn.Linear(8, classes))
        """,
        "return self.fc(self.mid(self.body(x).mean((2, 3))))",
    ),
    "LowRankAdapters": _file(
        """
        class LoRALinear(nn.Linear):
            def __init__(self, *args, r=2, alpha=4, **kwargs):
                super().__init__(*args, **kwargs)
                self.lora_A = nn.Parameter(self.weight.new_empty(r, self.in_features))
                self.lora_B = nn.Parameter(self.weight.new_zeros(self.out_features, r))
                self.scaling, self.merged = alpha / r, False
                self.weight.requires_grad = False
                nn.init.kaiming_uniform_(self.lora_A, a=5 ** .5)
            def train(self, mode=True):
                super().train(mode)
                if mode == self.merged:
                    self.weight.data += (-1 if mode else 1) * (self.lora_B @ self.lora_A).data * self.scaling
                    self.merged = not mode
                return self
            def forward(self, x):
                out = super().forward(x)
                return out if self.merged else out + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling
        """,
        "self.body, self.fc = nn.Conv2d(channels, 8, 3), LoRALinear(8, classes)",
    ),
    "NamedParameters": _file(
        "",
        """
        for i, width in enumerate([channels, 8, 8]):
            self.register_parameter('w%d' % i, nn.Parameter(torch.randn(8, width) / width ** .5))
        self.register_parameter('unused', None)
        self.banks = nn.ModuleDict({k: nn.Linear(8, classes, bias=b) for k, b in (('main', True), ('aux', False))})
        self.active = 'main'
        """,
        """
        x = x.mean((2, 3))
        for i in range(3):
            x = F.relu(F.linear(x, getattr(self, 'w%d' % i)))
        return self.banks[self.active](x) + sum(self.banks[k](x) for k in sorted(self.banks) if k != self.active)
        """,
    ),
    "ComplexWeights": _file(
        """
        class SpectralConv2d(nn.Module):
            def __init__(self, width, modes):
                super().__init__()
                self.modes = modes
                self.weights = nn.Parameter(torch.randn(width, width, modes, modes, dtype=torch.cfloat) / width ** 2)
            def forward(self, x):
                m, f = self.modes, torch.fft.rfft2(x)
                out = torch.zeros_like(f)
                out[:, :, :m, :m] = torch.einsum('bixy,ioxy->boxy', f[:, :, :m, :m], self.weights)
                return torch.fft.irfft2(out, s=x.shape[-2:])
        """,
        "self.lift, self.body = nn.Conv2d(channels, 8, 1), SpectralConv2d(8, 4)\nself.fc = nn.Linear(8, classes)",
        "x = self.lift(x)\nreturn self.fc(F.gelu(x + self.body(x)).mean((2, 3)))",
    ),
    "HyperNetwork": _file(
        "from torch.func import functional_call, stack_module_state, vmap",
        """
        self.body = nn.Conv2d(channels, 8, 3)
        self.hyper = nn.Linear(8, 8 * classes)
        self.target = nn.Linear(8, classes, bias=False)
        self.target.weight.requires_grad_(False)
        """,
        """
        f = self.body(x).mean((2, 3))
        weight = self.hyper(f.mean(0)).view(-1, 8) + self.target.weight
        return functional_call(self.target, {'weight': weight}, (f,))
        """,
    ),
    "VmappedEnsemble": _file(
        """
        import copy
        from torch.func import functional_call, stack_module_state, vmap
        """,
        """
        self.body = nn.Conv2d(channels, 8, 3)
        heads = [nn.Linear(8, classes) for _ in range(3)]
        params, _ = stack_module_state(heads)
        self.stacked = nn.ParameterDict(params)
        self.__dict__['base'] = copy.deepcopy(heads[0]).to('meta')
        """,
        """
        f = self.body(x).mean((2, 3))
        run = vmap(lambda p: functional_call(self.base, p, (f,)))
        return run(dict(self.stacked)).mean(0)
        """,
    ),
    "SparseGraph": _file(
        """
        def grid_adjacency(side):
            n = side * side
            pairs = [(i, j) for i in range(n) for j in range(n) if abs(i // side - j // side) + abs(i % side - j % side) <= 1]
            return torch.sparse_coo_tensor(torch.tensor(pairs).T, torch.full((len(pairs),), .2), (n, n)).coalesce()
        """,
        "self.register_buffer('adj', grid_adjacency(4))\nself.lift, self.fc = nn.Linear(channels, 8), nn.Linear(8, classes)",
        """
        nodes = F.adaptive_avg_pool2d(x, 4).flatten(2).permute(2, 0, 1)
        h = F.relu(self.lift(nodes)).flatten(1)
        h = torch.sparse.mm(self.adj, h).view(16, len(x), 8)
        return self.fc(h.mean(0))
        """,
    ),
    "ExtraState": _file(
        """
        class Tracker(nn.Module):
            def __init__(self):
                super().__init__()
                self.calls = 0
            def get_extra_state(self):
                return {'calls': self.calls}
            def set_extra_state(self, state):
                self.calls = state['calls']
            def _load_from_state_dict(self, state_dict, prefix, *args):
                state_dict.setdefault(prefix + '_extra_state', {'calls': 0})
                super()._load_from_state_dict(state_dict, prefix, *args)
            def forward(self, x):
                self.calls += self.training
                return x
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), Tracker())\nself.fc = nn.Linear(8, classes)",
    ),
    "TensorSubclass": _file(
        """
        class Tagged(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                return super().__torch_function__(func, types, args, kwargs or {})
        """,
        INIT,
        "return self.fc(self.body(x.as_subclass(Tagged)).mean((2, 3)))",
    ),
    # Layers.
    "UnfoldAttention": _file(
        """
        class NeighbourAttention(nn.Module):
            def __init__(self, dim, k=3):
                super().__init__()
                self.k, self.qkv = k, nn.Conv2d(dim, dim * 3, 1)
                self.rpb = nn.Parameter(torch.zeros(k * k))
            def forward(self, x):
                b, c, h, w = x.shape
                q, k, v = self.qkv(x).chunk(3, 1)
                k, v = (F.unfold(t, self.k, padding=self.k // 2).view(b, c, self.k ** 2, h * w) for t in (k, v))
                attn = torch.einsum('bcn,bckn->bkn', q.flatten(2), k) * c ** -.5 + self.rpb[None, :, None]
                return torch.einsum('bkn,bckn->bcn', attn.softmax(1), v).view(b, c, h, w)
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 4, 4), NeighbourAttention(8))\nself.fc = nn.Linear(8, classes)",
    ),
    "DeformableSampling": _file(
        "from torchvision.ops import DeformConv2d, RoIAlign",
        """
        self.offset = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        self.offsets, self.deform = nn.Conv2d(channels, 18, 3, padding=1), DeformConv2d(channels, 8, 3, padding=1)
        self.fc = nn.Linear(8, classes)
        """,
        """
        n, _, h, w = x.shape
        base = F.affine_grid(torch.eye(2, 3, device=x.device).expand(n, -1, -1), [n, 1, h, w], align_corners=False)
        x = F.grid_sample(x, base + .1 * self.offset(x).permute(0, 2, 3, 1).tanh(), padding_mode='border', align_corners=False)
        return self.fc(self.deform(x, self.offsets(x)).mean((2, 3)))
        """,
    ),
    "OdeSteps": _file(
        """
        class ODEFunc(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.conv, self.nfe = nn.Conv2d(dim + 1, dim, 3, padding=1), 0
            def forward(self, t, x):
                self.nfe += 1
                return torch.tanh(self.conv(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1)))
        def odeint_rk4(func, y, t):
            for t0, t1 in zip(t[:-1], t[1:]):
                dt = t1 - t0
                k1 = func(t0, y)
                k2 = func(t0 + dt / 2, y + dt * k1 / 2)
                k3 = func(t0 + dt / 2, y + dt * k2 / 2)
                y = y + dt * (k1 + 2 * k2 + 2 * k3 + func(t1, y + dt * k3)) / 6
            return y
        """,
        "self.stem, self.ode = nn.Conv2d(channels, 8, 4, 4), ODEFunc(8)\nself.register_buffer('t', torch.linspace(0, 1, 3))\nself.fc = nn.Linear(8, classes)",
        "return self.fc(odeint_rk4(self.ode, self.stem(x), self.t).mean((2, 3)))",
    ),
    "MemoryBank": _file(
        "",
        """
        self.K = 16
        self.register_buffer('queue', F.normalize(torch.randn(8, self.K), dim=0))
        self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.long))
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8 + self.K, classes)
        """,
        """
        q = F.normalize(self.body(x).mean((2, 3)), dim=1)
        similar = q @ self.queue.clone().detach()
        if self.training:
            with torch.no_grad():
                ptr, keys = int(self.queue_ptr), q.detach()[:self.K]
                place = (torch.arange(len(keys), device=x.device) + ptr) % self.K
                self.queue[:, place] = keys.T
                self.queue_ptr[0] = (ptr + len(keys)) % self.K
        return self.fc(torch.cat([q, similar], 1))
        """,
    ),
    "EmaTeacher": _file(
        "import copy",
        """
        self.student = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.m, self.fc = .99, nn.Linear(16, classes)
        """,
        """
        if self.training:
            with torch.no_grad():
                for s, t in zip(self.student.parameters(), self.teacher.parameters()):
                    t.data.mul_(self.m).add_((1 - self.m) * s.detach().data)
        with torch.no_grad():
            self.teacher.eval()
            teacher = self.teacher(x).mean((2, 3))
        return self.fc(torch.cat([self.student(x).mean((2, 3)), teacher], 1))
        """,
    ),
    "GradientReversal": _file(
        """
        class GradReverse(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, lambd):
                ctx.lambd = lambd
                return x.view_as(x)
            @staticmethod
            def backward(ctx, grad_output):
                return grad_output.neg() * ctx.lambd, None
        grad_reverse = GradReverse.apply
        """,
        "self.body, self.fc, self.domain = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes), nn.Linear(8, 2)",
        "f = self.body(x).mean((2, 3))\nreturn self.fc(f), self.domain(grad_reverse(f, .1))",
    ),
    "VectorQuantizer": _file(
        """
        class VectorQuantizerEMA(nn.Module):
            def __init__(self, n, dim, decay=.9, eps=1e-5):
                super().__init__()
                self.decay, self.eps = decay, eps
                embed = torch.randn(dim, n)
                self.register_buffer('embed', embed)
                self.register_buffer('cluster_size', torch.zeros(n))
                self.register_buffer('embed_avg', embed.clone())
            def forward(self, z):
                flat = z.permute(0, 2, 3, 1)
                dist = (flat.unsqueeze(-1) - self.embed).square().sum(-2)
                index = dist.argmin(-1)
                quantize = F.embedding(index, self.embed.t())
                if self.training:
                    onehot = F.one_hot(index.flatten(), self.embed.shape[1]).type(z.dtype)
                    self.cluster_size.data.mul_(self.decay).add_(onehot.sum(0), alpha=1 - self.decay)
                    self.embed_avg.data.mul_(self.decay).add_(flat.flatten(0, 2).detach().t() @ onehot, alpha=1 - self.decay)
                    self.embed.data.copy_(self.embed_avg / (self.cluster_size + self.eps).clamp(min=.1))
                self.commitment = (quantize.detach() - flat).square().mean()
                return (flat + (quantize - flat).detach()).permute(0, 3, 1, 2)
        """,
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 4, 4), VectorQuantizerEMA(16, 8))\nself.fc = nn.Linear(8, classes)",
    ),
    "GumbelRouting": _file(
        "",
        "self.route, self.paths, self.fc = nn.Linear(channels, 3), nn.ModuleList(nn.Conv2d(channels, 8, k) for k in (1, 3, 5)), nn.Linear(8, classes)",
        """
        weights = F.gumbel_softmax(self.route(x.mean((2, 3))), tau=1., hard=True)
        out = torch.stack([path(x).mean((2, 3)) for path in self.paths], 1)
        return self.fc((weights.unsqueeze(-1) * out).sum(1))
        """,
    ),
    "TopKExperts": _file(
        "",
        """
        self.k, self.stem = 2, nn.Conv2d(channels, 8, 3)
        self.gate = nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes)) for _ in range(4)])
        """,
        """
        f = self.stem(x).mean((2, 3))
        top, index = self.gate(f).topk(self.k, dim=-1)
        weights, out = top.softmax(-1), f.new_zeros(len(f), self.experts[0][-1].out_features)
        for i, expert in enumerate(self.experts):
            rows, nth = torch.where(index == i)
            if rows.numel():
                out.index_add_(0, rows, weights[rows, nth, None] * expert(f[rows]))
        return out
        """,
    ),
    "SelectiveScan": _file(
        "",
        """
        self.patch, self.dt = nn.Conv2d(channels, 8, 8, 8), nn.Linear(8, 8)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, 5, dtype=torch.float32).repeat(8, 1)))
        self.A_log._no_weight_decay = True
        self.BC, self.fc = nn.Linear(8, 8), nn.Linear(8, classes)
        """,
        """
        u = self.patch(x).flatten(2).transpose(1, 2)
        delta, (B, C) = F.softplus(self.dt(u)), self.BC(u).chunk(2, -1)
        decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(self.A_log))
        state, ys = u.new_zeros(len(x), 8, 4), []
        for i in range(u.shape[1]):
            state = decay[:, i] * state + (delta[:, i] * u[:, i]).unsqueeze(-1) * B[:, i].unsqueeze(1)
            ys.append((state * C[:, i].unsqueeze(1)).sum(-1))
        return self.fc(torch.stack(ys, 1).mean(1))
        """,
    ),
    "SplineLayers": _file(
        """
        class KANLinear(nn.Module):
            def __init__(self, d_in, d_out, grid=4, order=2):
                super().__init__()
                self.order = order
                self.register_buffer('grid', (torch.arange(-order, grid + order + 1) * 2 / grid - 1).expand(d_in, -1).contiguous())
                self.base, self.coeff = nn.Linear(d_in, d_out), nn.Parameter(torch.randn(d_out, d_in, grid + order) * .1)
            def b_splines(self, x):
                x, grid = x.unsqueeze(-1), self.grid
                bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
                for k in range(1, self.order + 1):
                    left = (x - grid[:, :-k - 1]) / (grid[:, k:-1] - grid[:, :-k - 1]) * bases[..., :-1]
                    bases = left + (grid[:, k + 1:] - x) / (grid[:, k + 1:] - grid[:, 1:-k]) * bases[..., 1:]
                return bases
            def forward(self, x):
                return self.base(F.silu(x)) + torch.einsum('bik,oik->bo', self.b_splines(x), self.coeff)
        """,
        "self.body, self.kan = nn.Conv2d(channels, 8, 3), KANLinear(8, classes)",
        "return self.kan(self.body(x).mean((2, 3)))",
    ),
    "Reversible": _file(
        """
        class _Reverse(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, block, *params):
                ctx.block = block
                with torch.no_grad():
                    y = block.run(x)
                ctx.save_for_backward(y.detach())
                return y
            @staticmethod
            def backward(ctx, dy):
                y, = ctx.saved_tensors
                with torch.enable_grad():
                    x = ctx.block.invert(y).detach().requires_grad_()
                    out = ctx.block.run(x)
                    grads = torch.autograd.grad(out, (x, *ctx.block.parameters()), dy)
                return (grads[0], None, *grads[1:])
        class Block(nn.Module):
            def __init__(self, width):
                super().__init__()
                self.f, self.g = (nn.Conv2d(width // 2, width // 2, 3, padding=1) for _ in range(2))
            def run(self, x):
                a, b = x.chunk(2, 1)
                a = a + self.f(b)
                return torch.cat([a, b + self.g(a)], 1)
            def invert(self, y):
                with torch.no_grad():
                    a, b = y.chunk(2, 1)
                    b = b - self.g(a)
                    return torch.cat([a - self.f(b), b], 1)
            def forward(self, x):
                return _Reverse.apply(x, self, *self.parameters())
        """,
        "self.stem, self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Sequential(Block(8), Block(8)), nn.Linear(8, classes)",
        "return self.fc(self.body(self.stem(x)).mean((2, 3)))",
    ),
    "EnergyGradient": _file(
        "",
        "self.energy = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.Softplus(), nn.Conv2d(8, 1, 1))\nself.fc = nn.Linear(channels, classes)",
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            score, = torch.autograd.grad(self.energy(x).sum(), x, create_graph=self.training)
        return self.fc((x - .1 * score).mean((2, 3)))
        """,
    ),
    "TransformsInForward": _file(
        "import torchvision.transforms as T\nfrom torchvision.transforms import functional as TF",
        """
        self.normalize = T.Normalize(mean=[.5] * channels, std=[.25] * channels)
        self.augment = nn.Sequential(T.RandomHorizontalFlip(p=.5), T.RandomErasing(p=.2))
        self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)
        """,
        """
        x = self.normalize(x)
        if self.training:
            x = self.augment(x)
        return self.fc(self.body(TF.gaussian_blur(x, 3)).mean((2, 3)))
        """,
    ),
    "FeaturePyramid": _file(
        """
        from collections import OrderedDict
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.ops import FeaturePyramidNetwork
        """,
        """
        backbone = nn.Sequential(OrderedDict(c1=nn.Conv2d(channels, 8, 3, 2, 1), c2=nn.Conv2d(8, 16, 3, 2, 1)))
        self.body = IntermediateLayerGetter(backbone, return_layers={'c1': 'p1', 'c2': 'p2'})
        self.fpn, self.fc = FeaturePyramidNetwork([8, 16], 8), nn.Linear(16, classes)
        """,
        "return self.fc(torch.cat([p.mean((2, 3)) for p in self.fpn(self.body(x)).values()], 1))",
    ),
    "CutResnet": _file(
        "import torchvision.models as models",
        """
        resnet = models.resnet18(weights=None)
        resnet.fc = nn.Identity()
        resnet.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        self.features = nn.Sequential(*list(resnet.children())[:5])
        del resnet
        self.fc = nn.Linear(64, classes)
        """,
        "return self.fc(self.features(x).mean((2, 3)))",
    ),
    "TokenMerging": _file(
        "",
        "self.patch, self.fc = nn.Conv2d(channels, 8, 8, 8), nn.Linear(8, classes)\nself.r = 1",
        """
        x = self.patch(x).flatten(2).transpose(1, 2)
        a, b = x[:, ::2], x[:, 1::2]
        scores = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(1, 2)
        best, node = scores.max(-1)
        order = best.argsort(-1, descending=True)[..., None]
        kept, merged = order[:, self.r:], order[:, :self.r]
        dst = node[..., None].gather(1, merged)
        b = b.scatter_reduce(1, dst.expand(-1, -1, 8), a.gather(1, merged.expand(-1, -1, 8)), reduce='mean')
        return self.fc(torch.cat([a.gather(1, kept.expand(-1, -1, 8)), b], 1).mean(1))
        """,
    ),
    "HaarWavelet": _file(
        """
        import numpy as np
        _LOW = np.array([1., 1.]) / np.sqrt(2.)
        _HIGH = _LOW * np.array([1., -1.])
        FILTERS = np.stack([np.outer(a, b) for a in (_LOW, _HIGH) for b in (_LOW, _HIGH)]).astype(np.float32)
        """,
        """
        self.register_buffer('filters', torch.from_numpy(FILTERS).unsqueeze(1).repeat(channels, 1, 1, 1))
        self.groups, self.fc = channels, nn.Linear(4 * channels, classes)
        """,
        "return self.fc(F.conv2d(x, self.filters, stride=2, groups=self.groups).abs().mean((2, 3)))",
    ),
    # Size and depth.
    "ThreeHundredLayers": _file(
        "",
        """
        layers = [nn.Conv2d(channels, 8, 3, 2, 1)]
        for i in range(100):
            layers += [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
        self.body, self.fc = nn.Sequential(*layers), nn.Linear(8, classes)
        """,
    ),
    "Hourglass": _file(
        """
        class Hourglass(nn.Module):
            def __init__(self, n, width):
                super().__init__()
                self.up, self.low = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
                self.inner = Hourglass(n - 1, width) if n > 1 else nn.Conv2d(width, width, 3, padding=1)
            def forward(self, x):
                low = self.inner(self.low(F.max_pool2d(x, 2)))
                return self.up(x) + F.interpolate(low, size=x.shape[2:], mode='nearest')
        """,
        "self.stem, self.body, self.fc = nn.Conv2d(channels, 8, 3, padding=1), Hourglass(4, 8), nn.Linear(8, classes)",
        "return self.fc(self.body(self.stem(x)).mean((2, 3)))",
    ),
    "DeepNesting": _file(
        "import sys\nsys.setrecursionlimit(10 ** 5)",
        """
        body = nn.Identity()
        for _ in range(250):
            body = nn.Sequential(nn.BatchNorm2d(channels), body)
        self.body, self.fc = body, nn.Linear(channels, classes)
        """,
    ),
    "LongLines": _file(
        "WIDTHS = [" + ", ".join(["8"] * 240) + "]  # " + "x" * 2000 + "\nSUM = " + " + ".join(["1"] * 400),
        "self.body, self.fc = nn.Sequential(*[nn.Conv2d(a, b, 1) for a, b in zip([channels] + WIDTHS[:2], WIDTHS[:3])]), nn.Linear(8, classes)\nassert SUM == 400",
    ),
    "ManyBranches": _file(
        "def width_of(name):\n    if name == 'a':\n        return 4\n"
        + "".join(f"    elif name == 'tiny_{i}':\n        return {i % 8 + 1}\n" for i in range(90))
        + "    else:\n        raise ValueError(name)",
        "self.body = nn.Conv2d(channels, width_of('tiny_47'), 3)\nself.fc = nn.Linear(8, classes)",
    ),
    # The process.
    "LoggingConfig": _file(
        """
        import logging, sys, time
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format='%(asctime)s %(message)s')
        logger = logging.getLogger(__name__)
        """,
        f"{INIT}\nlogger.info('built %s at %s', type(self).__name__, time.strftime('%H:%M'))",
        "print('input', tuple(x.shape), flush=True)\nreturn self.fc(self.body(x).mean((2, 3)))",
    ),
    "NamespaceOfArguments": _file(
        """
        import argparse, types
        parser = argparse.ArgumentParser(description='Tiny')
        parser.add_argument('--width', type=int, default=8)
        parser.add_argument('--act', choices=['relu', 'gelu'], default='gelu')
        args = parser.parse_args([])
        """,
        """
        opt = argparse.Namespace(**{**vars(args), **prm})
        opt.extra = types.SimpleNamespace(stride=2)
        self.body = nn.Sequential(nn.Conv2d(channels, opt.width, 3, opt.extra.stride), nn.GELU() if opt.act == 'gelu' else nn.ReLU())
        self.fc = nn.Linear(opt.width, classes)
        self.lr = opt.lr
        """,
    ),
    "Environment": _file(
        """
        import os, sys
        os.environ.setdefault('TORCH_HOME', os.path.join(os.path.expanduser('~'), '.cache'))
        os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
        DEBUG = os.environ.get('TINY_DEBUG', '0') == '1' or os.getenv('TINY_TRACE') is not None
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        """,
        f"{INIT}\nif DEBUG:\n    print(self)",
    ),
    "Printing": _file(
        """
        import numpy as np
        np.set_printoptions(precision=3, suppress=True)
        torch.set_printoptions(precision=3, sci_mode=False)
        np.seterr(divide='ignore', invalid='ignore')
        """,
        INIT,
    ),
    "FlagsOfBackends": _file(
        """
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.enable_flash_sdp(False)
        torch.set_num_threads(2)
        """,
        INIT,
    ),
    "NewPrecisionFlags": _file(
        "if hasattr(torch.backends, 'fp32_precision'):\n    torch.backends.fp32_precision = 'tf32'\n    torch.backends.cudnn.conv.fp32_precision = 'tf32'",
        INIT,
    ),
    "Distributed": _file(
        """
        import torch.distributed as dist
        def is_main_process():
            return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        def world_size():
            return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        """,
        f"{INIT}\nif is_main_process():\n    self.scale = 1. / world_size()",
        "return self.fc(self.body(x).mean((2, 3))) * self.scale",
    ),
    "ForkedGenerator": _file(
        "import random\nrng = random.Random(0)",
        f"{INIT}\nself.order = rng.sample(range(8), 8)",
        """
        f = self.body(x).mean((2, 3))[:, self.order]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            noise = torch.randn(8, device=x.device)
        return self.fc(f + .01 * noise)
        """,
    ),
    "WeakReferences": _file(
        """
        import weakref
        from collections import ChainMap, Counter, defaultdict, deque
        class Child(nn.Module):
            def __init__(self, parent, width):
                super().__init__()
                self.parent, self.conv = weakref.ref(parent), nn.Conv2d(width, 8, 3)
            def forward(self, x):
                return self.conv(x) * self.parent().gain
        """,
        "self.gain, self.recent, self.seen = nn.Parameter(torch.ones(1)), deque(maxlen=2), Counter()\nself.body, self.fc = Child(self, channels), nn.Linear(8, classes)",
        "self.recent.append(x.shape)\nself.seen[len(x)] += 1\nreturn self.fc(self.body(x).mean((2, 3)))",
    ),
    "Latin1Header": (
        "#!/usr/bin/env python\n# -*- coding: latin-1 -*-\n# Auteur: François Müller\n"
        + _file("TITLE = 'Réseau à convolutions'", f"{INIT}\nassert len(TITLE) == 21")
    ).encode("latin-1"),
    "WindowsFile": b"\xef\xbb\xbf" + _file('"""\nCopyright (c)\n"""', INIT).replace("\n", "\r\n").encode(),
    # Files that build their network once.
    "ConsumedIterator": _file(
        "WIDTHS = zip([3, 8, 8], [8, 8, 16])\nSTRIDES = iter([2, 1, 1])",
        "self.body = nn.Sequential(*(nn.Conv2d(a, b, 3, next(STRIDES), 1) for a, b in WIDTHS))\nself.fc = nn.Linear(16, classes)",
    ),
    "PoppedConfig": _file(
        """
        CFG = {'type': 'Conv2d', 'out_channels': 8, 'kernel_size': 3, 'extra': []}
        def build(cfg, **kwargs):
            kind = cfg.pop('type')
            return getattr(nn, kind)(**{k: v for k, v in cfg.items() if k != 'extra'}, **kwargs)
        """,
        "self.body, self.fc = build(CFG, in_channels=channels), nn.Linear(8, classes)",
    ),
    "CustomOperator": _file(
        """
        @torch.library.custom_op('tiny_nets::double', mutates_args=())
        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2
        @double.register_fake
        def _(x):
            return torch.empty_like(x)
        double.register_autograd(lambda ctx, grad: grad * 2)
        """,
        INIT,
        "return self.fc(double(self.body(x)).mean((2, 3)))",
    ),
    "SyncedNorms": _file(
        "",
        """
        body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8))
        self.body = nn.SyncBatchNorm.convert_sync_batchnorm(body) if torch.cuda.device_count() > 1 else body
        self.bns = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.fc = nn.Linear(8, classes)
        """,
    ),
    "CheckpointSequential": _file(
        "from torch.utils.checkpoint import checkpoint_sequential",
        "self.body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())\nself.fc = nn.Linear(8, classes)",
        "x = checkpoint_sequential(self.body, 2, x, use_reentrant=False)\nreturn self.fc(x.mean((2, 3)))",
    ),
    "QueriesOfADecoder": _file(
        "from torch.nn.attention import SDPBackend, sdpa_kernel",
        """
        self.patch = nn.Conv2d(channels, 16, 8, 8)
        layer = nn.TransformerDecoderLayer(16, 2, 32, dropout=.1, batch_first=True, activation='gelu')
        self.decoder, self.query = nn.TransformerDecoder(layer, 1), nn.Embedding(4, 16)
        self.cls = nn.ModuleList([nn.Linear(16, classes) for _ in range(2)])
        """,
        """
        memory = self.patch(x).flatten(2).transpose(1, 2)
        with sdpa_kernel(SDPBackend.MATH):
            q = self.decoder(self.query.weight.unsqueeze(0).expand(len(x), -1, -1), memory)
        return torch.stack([head(q) for head in self.cls]).mean((0, 2))
        """,
    ),
    "HooksOfTheState": _file(
        """
        class Renamed(nn.Module):
            def __init__(self, c):
                super().__init__()
                self.weight_v = nn.Parameter(torch.randn(8, c) * .1)
                self._register_state_dict_hook(self._save)
                self._register_load_state_dict_pre_hook(self._load)
            @staticmethod
            def _save(module, state, prefix, metadata):
                state[prefix + 'w'] = state.pop(prefix + 'weight_v')
            def _load(self, state, prefix, *args):
                if prefix + 'w' in state:
                    state[prefix + 'weight_v'] = state.pop(prefix + 'w')
            def forward(self, x):
                return torch.einsum('bchw,oc->bohw', x, self.weight_v)
        """,
        "self.body, self.fc = Renamed(channels), nn.Linear(8, classes)",
    ),
    "AtTheEndOfTheProcess": _file(
        "import atexit, gc, os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\natexit.register(print, 'done')\ngc.collect()",
        INIT,
    ),
    "NetInABranch": "import torch\nTRY = hasattr(torch, 'compile')\n"
    + "if TRY:\n"
    + _file("", INIT).partition("def supported")[0].replace("\n", "\n    ").join(["    ", "pass\n"])
    + "else:\n    raise ImportError('a newer torch is needed')\n"
    + _SUPPORTED,
    # Training of its own kind, which a mixture does not use.
    "SchedulerAndMixup": _training(
        """
        self.to(self.device)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.optimizer = Lion(self.parameters(), lr=prm['lr'])
        warmup = torch.optim.lr_scheduler.LinearLR(self.optimizer, .1, total_iters=2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=10)
        self.scheduler = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [warmup, cosine], milestones=[2])
        """,
        """
        for inputs, labels in train_data:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            lam, index = np.random.beta(.2, .2), torch.randperm(len(inputs), device=inputs.device)
            outputs = self(lam * inputs + (1 - lam) * inputs[index])
            loss = lam * self.criterion(outputs, labels) + (1 - lam) * self.criterion(outputs, labels[index])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.scheduler.step()
        """,
        """
        import numpy as np
        from torch.optim.optimizer import Optimizer
        class Lion(Optimizer):
            def __init__(self, params, lr=1e-4, betas=(0.9, 0.99)):
                super().__init__(params, dict(lr=lr, betas=betas))
            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for p in group['params']:
                        if p.grad is None:
                            continue
                        exp_avg = self.state[p].setdefault('exp_avg', torch.zeros_like(p))
                        b1, b2 = group['betas']
                        p.add_(exp_avg.mul(b1).add(p.grad, alpha=1 - b1).sign_(), alpha=-group['lr'])
                        exp_avg.mul_(b2).add_(p.grad, alpha=1 - b2)
        """,
    ),
    "ScalerAndAccumulation": _training(
        """
        self.to(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == 'cuda')
        decay = [p for p in self.parameters() if p.ndim > 1]
        self.optimizer = torch.optim.AdamW([{'params': decay, 'weight_decay': .05},
            {'params': [p for p in self.parameters() if p.ndim <= 1], 'weight_decay': 0.}], lr=prm['lr'])
        """,
        """
        for step, (inputs, labels) in enumerate(train_data):
            sync = getattr(self, 'no_sync', contextlib.nullcontext) if step % 2 else contextlib.nullcontext
            with sync(), torch.autocast(self.device.type, enabled=self.device.type == 'cuda'):
                loss = F.cross_entropy(self(inputs.to(self.device)), labels.to(self.device)) / 2
            self.scaler.scale(loss).backward()
            if step % 2:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.parameters(), 1.)
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad()
        """,
        "import contextlib",
    ),
}  # fmt: skip
"""Files that work alone; each must be usable as an expert, equal to the last bit."""

MORE_STAND: dict[str, tuple[str | bytes, str]] = {
    "OpensFile": (
        _file(
            "import json",
            "with open('config.json') as f:\n    cfg = json.load(f)\nself.body = nn.Conv2d(channels, cfg['width'], 3)\nself.fc = nn.Linear(8, classes)",
        ),
        "open(...) is not allowed",
    ),
    "ReadsPath": (
        _file("from pathlib import Path", f"self.names = (Path(__file__).parent / 'labels.txt').read_text().split()\n{INIT}"),
        "No such file or directory",
    ),
    "HubLoad": (
        _file("", "self.net = torch.hub.load('pytorch/vision:v0.10.0', 'resnet18', pretrained=True)", "return self.net(x)"),
        "torch.hub.load(...) is not allowed",
    ),
    "PretrainedWeights": (
        _file(
            "from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1",
            "self.net = squeezenet1_1(weights=SqueezeNet1_1_Weights.IMAGENET1K_V1)\nself.net.classifier[1] = nn.Conv2d(512, classes, 1)",
            "return self.net(x)",
        ),
        "URLError",
    ),
    "AsksTheUser": (
        _file("WIDTH = int(input('width? '))", "self.body = nn.Conv2d(channels, WIDTH, 3)\nself.fc = nn.Linear(WIDTH, classes)"),
        "input(...) is not allowed",
    ),
    "ExitsAtTheEnd": (
        _file("import sys", INIT, tail="\n\nprint(Net.__doc__)\nsys.exit(0)\n"),
        "sys.exit(0) was called",
    ),
    "BuiltinExit": (_file("", INIT, tail="\n\nexit()\n"), "while the file was imported"),
    "ThreadLocal": (
        _file("import threading\n_LOCAL = threading.local()\n_LOCAL.width = 8", INIT.replace("8", "_LOCAL.width")),
        "import threading is not allowed",
    ),
    "ThreadPool": (
        _file(
            "from concurrent.futures import ThreadPoolExecutor",
            f"{INIT}\nself.pool = ThreadPoolExecutor(2)",
            "return self.fc(list(self.pool.map(self.body, [x]))[0].mean((2, 3)))",
        ),
        "from concurrent.futures import is not allowed",
    ),
    "FindSpec": (
        _file("import importlib.util\nHAS_XFORMERS = importlib.util.find_spec('xformers') is not None", f"{INIT}\nself.fused = HAS_XFORMERS"),
        "import importlib.util is not allowed",
    ),
    "CudaOnly": (_file("", "self.body = nn.Conv2d(channels, 8, 3).cuda()\nself.fc = nn.Linear(8, classes).cuda()"), "NVIDIA"),
    "BatchOfInShape": (
        _file("", f"self.batch = in_shape[0]\n{INIT}", "return self.fc(self.body(x).mean((2, 3)).view(self.batch, -1))"),
        "mat1 and mat2 shapes cannot be multiplied",
    ),
    "SavesHyperparameters": (
        _file(
            """
            import inspect
            class Base(nn.Module):
                def save_hyperparameters(self):
                    frame = inspect.currentframe().f_back
                    self.hparams = {k: v for k, v in frame.f_locals.items() if k != 'self'}
            """,
            f"self.save_hyperparameters()\n{INIT}",
        ).replace("class Net(nn.Module)", "class Net(Base)"),
        "a look at the call stack",
    ),
    "RegistryByQualname": (
        _file(
            "KNOWN = {}\ndef register(cls):\n    KNOWN[cls.__qualname__] = cls\n    return cls\n@register\nclass Stem(nn.Conv2d):\n    pass",
            "self.body, self.fc = KNOWN['Stem'](channels, 8, 3), nn.Linear(8, classes)",
        ),
        "__qualname__ is another inside a function",
    ),
    "ClassOfTheSameName": (
        _file("width = 8\nclass Config:\n    width = width * 2", "self.body, self.fc = nn.Conv2d(channels, Config.width, 3), nn.Linear(16, classes)"),
        "binds the same name",
    ),
    "ExecTemplate": (
        _file(
            "SPACE = {'nn': nn}\nexec('class Stem(nn.Conv2d):\\n    pass', SPACE)",
            "self.body, self.fc = SPACE['Stem'](channels, 8, 3), nn.Linear(8, classes)",
        ),
        "exec(...) is not allowed",
    ),
    "PatchedTorchvision": (
        _file(
            "from torchvision.models import resnet\nresnet.BasicBlock.forward = lambda self, x: F.silu(self.bn1(self.conv1(x)))",
            "self.body, self.fc = resnet.BasicBlock(channels, 8), nn.Linear(8, classes)",
        ),
        "it changes torchvision.models.resnet.BasicBlock.forward",
    ),
    "WarningsAreErrors": (
        _file("import warnings\nwarnings.simplefilter('error', UserWarning)", INIT),
        "it changes warnings.filters",
    ),
    "HookOfAllModules": (
        _file("import torch.nn.modules.module as m\nm.register_module_forward_hook(lambda *_: None)", INIT),
        "the hooks of all modules",
    ),
    "NumbersWithoutSeed": (
        _file(
            "import numpy as np\nrng = np.random.default_rng()",
            f"{INIT}\nself.body.weight.data.copy_(torch.from_numpy(rng.normal(0, .1, self.body.weight.shape)))",
        ),
        "that no seed sets",
    ),
    "NamesByUuid": (
        _file(
            "import uuid",
            f"{INIT}\nself.key = 'adapter_' + uuid.uuid4().hex[:8]\nself.add_module(self.key, nn.Linear(8, 8))",
            "return self.fc(getattr(self, self.key)(self.body(x).mean((2, 3))))",
        ),
        "that no seed sets",
    ),
    "PartialNet": (
        _file("from functools import partial", INIT)
        .replace("class Net(", "class Model(")
        .replace("super(Net, self)", "super()")
        + "\n\nNet = partial(Model)\n",
        "Net is not a subclass of torch.nn.Module",
    ),
    "Python2Print": (_file("print 'loading'", INIT), "not Python: Missing parentheses"),
    "OneLogit": (_file("", INIT, "return self.fc(self.body(x).mean((2, 3))).max(1).values"), "forward returned (2,)"),
    "LoggerOfTheTraining": (
        _file("import wandb", INIT).replace("            self.optimizer.step()", "            self.optimizer.step()\n            wandb.log({'loss': loss})"),
        "No module named 'wandb'",
    ),
    "SiblingByPath": (
        _file("import sys\nsys.path.append('..')\nfrom models.common import Conv", "self.body, self.fc = Conv(channels, 8), nn.Linear(8, classes)"),
        "imports models",
    ),
    "StarOfUtils": (_file("from utils import *", INIT), "imports utils"),
    "SharingStrategy": (
        _file("torch.multiprocessing.set_sharing_strategy('file_system')", INIT),
        "torch.multiprocessing.set_sharing_strategy(...) is not allowed",
    ),
    "InteropThreads": (_file("torch.set_num_interop_threads(2)", INIT), "cannot set number of interop threads"),
    "AllFrozen": (
        _file("", f"{INIT}\nfor p in self.parameters():\n    p.requires_grad_(False)"),
        "does not require grad",
    ),
    "MissingName": (
        _file("", "self.body = ConvBNReLU(channels, 8)\nself.fc = nn.Linear(8, classes)"),
        "name 'ConvBNReLU' is not defined",
    ),
    "MisspeltShape": (
        _file("", "self.body, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(16, classes)"),
        "mat1 and mat2 shapes cannot be multiplied",
    ),
}  # fmt: skip
"""Files that cannot be experts, or do not work at all, with a part of the reason that must be given."""
