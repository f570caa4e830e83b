"""What the usual converters make of models for tables: scikit-learn's, XGBoost's and LightGBM's.

Needs the dependency group `converters`, which `make batched` installs; nothing else in the project does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np
import onnx
import xgboost
from onnxmltools.convert import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn import (
    cluster,
    compose,
    decomposition,
    ensemble,
    feature_extraction,
    gaussian_process,
    linear_model,
    mixture,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

ROWS, WIDTH = 120, 6
WORDS = ["red", "green", "blue", "tall", "small", "old", "new"]


def models() -> Iterator[tuple[str, onnx.ModelProto]]:
    """A name and a model each; what a converter refuses is left out with a line that says so."""
    warnings.simplefilter("ignore")
    random = np.random.default_rng(1)
    x = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    labels = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1)
    values = x @ np.arange(WIDTH, dtype=np.float32)
    for name, model, target in estimators(labels, values):
        try:
            model.fit(x, target)
            options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
            yield f"sklearn_{name}", to_onnx(model, x[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
        except Exception as error:  # noqa: BLE001 -- whatever a converter raises
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}")
    yield from texts(random, labels)
    yield from boosted(x, labels, values)


def estimators(labels: Any, values: Any) -> Iterator[tuple[str, Any, Any]]:
    """Estimators, each with what it learns."""
    scaled = pipeline.make_pipeline
    classifiers = [
        linear_model.LogisticRegression(max_iter=200),
        linear_model.SGDClassifier(loss="log_loss"),
        linear_model.RidgeClassifier(),
        svm.SVC(probability=True),
        svm.LinearSVC(),
        tree.DecisionTreeClassifier(),
        ensemble.RandomForestClassifier(10),
        ensemble.ExtraTreesClassifier(10),
        ensemble.GradientBoostingClassifier(n_estimators=5),
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        ensemble.AdaBoostClassifier(n_estimators=5),
        ensemble.BaggingClassifier(n_estimators=3),
        naive_bayes.GaussianNB(),
        neighbors.KNeighborsClassifier(),
        neural_network.MLPClassifier((8,), max_iter=20),
        multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        ensemble.VotingClassifier(
            [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier())], voting="soft"
        ),
        ensemble.StackingClassifier([("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier())]),
        scaled(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
        scaled(preprocessing.MinMaxScaler(), preprocessing.PolynomialFeatures(2), linear_model.LogisticRegression()),
    ]
    regressors = [
        linear_model.LinearRegression(),
        linear_model.Ridge(),
        linear_model.Lasso(0.01),
        linear_model.ElasticNet(0.01),
        svm.SVR(),
        tree.DecisionTreeRegressor(),
        ensemble.RandomForestRegressor(10),
        ensemble.ExtraTreesRegressor(10),
        ensemble.GradientBoostingRegressor(n_estimators=5),
        ensemble.HistGradientBoostingRegressor(max_iter=5),
        neighbors.KNeighborsRegressor(),
        neural_network.MLPRegressor((8,), max_iter=20),
        gaussian_process.GaussianProcessRegressor(),
        linear_model.PoissonRegressor(),
    ]
    transformers = [
        preprocessing.StandardScaler(),
        preprocessing.MinMaxScaler(),
        preprocessing.MaxAbsScaler(),
        preprocessing.RobustScaler(),
        preprocessing.Normalizer(),
        preprocessing.Binarizer(),
        preprocessing.PolynomialFeatures(2),
        preprocessing.KBinsDiscretizer(4),
        preprocessing.PowerTransformer(),
        preprocessing.QuantileTransformer(n_quantiles=20),
        decomposition.PCA(3),
        decomposition.TruncatedSVD(3),
        cluster.KMeans(3),
        mixture.GaussianMixture(2),
        ensemble.IsolationForest(n_estimators=5),
        neighbors.LocalOutlierFactor(novelty=True),
    ]
    for group, target in ((classifiers, labels), (regressors, values), (transformers, labels)):
        for place, model in enumerate(group):
            yield f"{type(model).__name__}_{place}", model, target


def texts(random: Any, labels: Any) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Words and numbers in columns of their own, and sentences."""
    words = random.choice(WORDS, size=(ROWS, 2)).astype(object)
    one_hot = preprocessing.OneHotEncoder(handle_unknown="ignore").fit(words)
    yield "sklearn_OneHotEncoder", to_onnx(one_hot, initial_types=[("x", StringTensorType([None, 2]))])
    ordinal = preprocessing.OrdinalEncoder().fit(words)
    yield "sklearn_OrdinalEncoder", to_onnx(ordinal, initial_types=[("x", StringTensorType([None, 2]))])
    label = preprocessing.LabelEncoder().fit(words[:, 0])
    yield "sklearn_LabelEncoder", to_onnx(label, initial_types=[("x", StringTensorType([None]))])
    sentences = [" ".join(random.choice(WORDS, size=5)) for _ in range(ROWS)]
    vectorizer = feature_extraction.text.TfidfVectorizer().fit(sentences)
    yield "sklearn_TfidfVectorizer", to_onnx(vectorizer, initial_types=[("x", StringTensorType([None, 1]))])
    import pandas  # noqa: PLC0415 -- comes with the converters

    frame = pandas.DataFrame(
        {"colour": words[:, 0], "age": random.normal(size=ROWS), "count": random.integers(0, 9, ROWS)}
    )
    columns = compose.ColumnTransformer(
        [
            ("words", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("numbers", preprocessing.StandardScaler(), ["age"]),
            ("counts", "passthrough", ["count"]),
        ]
    )
    mixed = pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(frame, labels)
    types = [
        ("colour", StringTensorType([None, 1])),
        ("age", FloatTensorType([None, 1])),
        ("count", Int64TensorType([None, 1])),
    ]
    yield "sklearn_ColumnTransformer", to_onnx(mixed, initial_types=types, options={"zipmap": False})


def boosted(x: Any, labels: Any, values: Any) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Boosted trees of the two libraries."""
    types = [("x", ToolsFloats([None, WIDTH]))]
    yield (
        "xgboost_classifier",
        convert_xgboost(xgboost.XGBClassifier(n_estimators=5).fit(x, labels), initial_types=types),
    )
    yield "xgboost_regressor", convert_xgboost(xgboost.XGBRegressor(n_estimators=5).fit(x, values), initial_types=types)
    yield "xgboost_forest", convert_xgboost(xgboost.XGBRFRegressor(n_estimators=5).fit(x, values), initial_types=types)
    classifier = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(x, labels)
    yield "lightgbm_classifier", convert_lightgbm(classifier, initial_types=types, zipmap=False)
    regressor = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(x, values)
    yield "lightgbm_regressor", convert_lightgbm(regressor, initial_types=types)
